"""Commands for runs: planned, acquired, looked at, and what becomes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dmu_hw.cli.output import Output
from dmu_hw.cli.words import Json, PortOption, ProtocolFile, RigOption, RunArgument
from dmu_hw.errors import InputError

app = typer.Typer()


@app.command()
def plan(protocol: ProtocolFile, rig: RigOption = None, json: Json = False) -> None:
    """Say what a protocol would do and cost; nothing is lit.

    Frames, time in s, light dose at the sample in mJ/cm², disk in MB. No device is opened.
    """
    with Output(as_json=json) as output:
        from dmu_hw.cli.planning import show_plan  # noqa: PLC0415

        show_plan(protocol, rig, output)


@app.command()
def run(
    protocol: Annotated[
        Path | None, typer.Argument(metavar="PROTOCOL", help="Such as protocols/quickstart.yaml; not needed to resume.")
    ] = None,
    rig: RigOption = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Where the run folder TIME-NAME goes; runs by default.")
    ] = None,
    resume: Annotated[
        Path | None, typer.Option("--resume", metavar="RUN", help="Go on with a run that was cut, in its own folder.")
    ] = None,
    view: Annotated[
        bool, typer.Option("--view", help="Show it in the browser, at the address that is printed.")
    ] = False,
    port: PortOption = 0,
    json: Json = False,
) -> None:
    """Acquire and reconstruct; leave a run folder with a report.

    Whatever stands against it is said before the light goes on. Ctrl-C puts the light off and ends the run; what was
    cut goes on by --resume.
    """
    with Output(as_json=json) as output:
        if resume is not None:
            from dmu_hw.cli.resume import resume_run  # noqa: PLC0415

            if out is not None:
                raise InputError("--out: a run that is resumed stays where it is")
            resume_run(resume, protocol, rig, output, port if view else None)
        from dmu_hw.cli.acquire import run_protocol  # noqa: PLC0415

        if protocol is None:
            raise InputError("PROTOCOL is missing; give one, or a run that was cut by --resume RUN")
        run_protocol(protocol, rig, out or Path("runs"), output, port if view else None)


@app.command()
def view(
    run: Annotated[
        Path | None, typer.Argument(metavar="RUN", help="A run folder that has ended; not needed with --rig.")
    ] = None,
    rig: Annotated[
        Path | None, typer.Option("--rig", metavar="RIG", help="A rig YAML: what its camera sees now.")
    ] = None,
    channel: Annotated[
        str | None,
        typer.Option("--channel", metavar="NAME", help="With --rig: in which channel; the first by default."),
    ] = None,
    port: PortOption = 0,
    json: Json = False,
) -> None:
    """Show a run in the browser, or what a rig's camera sees.

    A rig is lit only while somebody looks at the page and has asked for light. A run that goes on shows itself: dmu run
    --view.
    """
    with Output(as_json=json) as output:
        from dmu_hw.cli.viewing import view_rig, view_run  # noqa: PLC0415

        if (run is None) == (rig is None):
            raise InputError("give a RUN, or a rig by --rig RIG")
        if rig is not None:
            view_rig(rig, channel, port, output)
        elif run is not None:
            view_run(run, port, output)


@app.command()
def pause(folder: RunArgument, json: Json = False) -> None:
    """Let a run stand still in the dark; its time stands still too.

    It pauses after the burst that is being taken, until `dmu go`.
    """
    with Output(as_json=json) as output:
        from dmu_hw.cli.orders import give_order  # noqa: PLC0415

        give_order(folder, "pause", "", output)


@app.command()
def go(folder: RunArgument, json: Json = False) -> None:
    """Let a paused run go on."""
    with Output(as_json=json) as output:
        from dmu_hw.cli.orders import give_order  # noqa: PLC0415

        give_order(folder, "go", "", output)


@app.command()
def abort(
    folder: RunArgument,
    reason: Annotated[
        str, typer.Option("--reason", metavar="TEXT", help="Why; it stands in the report.")
    ] = "dmu abort was called",
    json: Json = False,
) -> None:
    """End a run at once, in the dark.

    What was taken is kept, stored and reported; what was not is recorded as missing.
    """
    with Output(as_json=json) as output:
        from dmu_hw.cli.orders import give_order  # noqa: PLC0415

        give_order(folder, "abort", reason, output)


@app.command()
def reconstruct(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of runs that have come to their end.")],
    bundle: Annotated[
        list[str] | None,
        typer.Option(
            "--bundle", metavar="[CHANNEL=]FILE", help="Default: the run's own. Once a channel, where it has several."
        ),
    ] = None,
    engine: Annotated[
        Path | None,
        typer.Option("--engine", metavar="YAML", help="`engine:` as in a sweep: local, Ray or SLURM."),
    ] = None,
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, help="Processes here; default: a core each.")
    ] = None,
    json: Json = False,
) -> None:
    """Make a run's images afresh, beside those it has.

    Each goes into RUN/reconstruction-BUNDLE-HASH.ome.zarr. The same command goes on with what was stopped or killed.
    Exit status 3: the inverse failed on some bursts.
    """
    with Output(as_json=json) as output:
        from dmu_hw.cli.reconstruct import reconstruct_runs  # noqa: PLC0415

        reconstruct_runs(runs, bundle or [], engine, workers, output)


@app.command()
def verify(folder: RunArgument, json: Json = False) -> None:
    """Say whether a run is what it was; name every damaged frame.

    Exit status: 0 sound and whole, 1 damaged, 3 sound but cut short or with frames missing.
    """
    with Output(as_json=json) as output:
        from dmu_hw.cli.runs import verify_run  # noqa: PLC0415

        verify_run(folder, output)


@app.command()
def export(
    folder: RunArgument,
    file: Annotated[
        Path, typer.Argument(metavar="FILE.ome.tif", help="The file to write; an existing one is not overwritten.")
    ],
    what: Annotated[
        str,
        typer.Option(
            "--what",
            metavar="IMAGES",
            help="reconstruction, labels, frames (raw), plain, full, truth; CHANNEL-frames, …",
        ),
    ] = "reconstruction",
    mosaic: Annotated[
        bool, typer.Option("--mosaic", help="One image of all fields by where they lie on the stage.")
    ] = False,
    json: Json = False,
) -> None:
    """Write a run's images as OME-TIFF for Fiji.

    With pixel sizes in µm and time steps in s. A mosaic is blended where fields overlap.
    """
    with Output(as_json=json) as output:
        from dmu_hw.cli.runs import export_run  # noqa: PLC0415

        export_run(folder, file, what, output, mosaic=mosaic)
