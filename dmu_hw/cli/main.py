"""`dmu`: every command and its options. Loads neither torch nor a driver by itself."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from dmu_hw import __version__
from dmu_hw.cli.output import DONE, FAILED, REFUSED, Output
from dmu_hw.cli.stop import stoppable
from dmu_hw.errors import InputError

app = typer.Typer(
    name="dmu",
    help="Learned-illumination microscopy: learn patterns, show them, acquire, reconstruct.",
    epilog="Exit status: 0 done, 1 failed, 2 wrong usage or refused input, 3 done but incomplete.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

_UsageError: Any = typer.BadParameter.__base__
"""Of click, or of the copy of it that newer versions of typer bring along."""

Json = Annotated[bool, typer.Option("--json", help="Print one object for programs on standard output at the end.")]
ProtocolFile = Annotated[
    Path, typer.Argument(metavar="PROTOCOL", help="A protocol, such as protocols/quickstart.yaml.")
]
RigOption = Annotated[
    Path | None, typer.Option("--rig", metavar="RIG", help="A rig YAML to use instead of the one the protocol names.")
]
DeviceOption = Annotated[
    str, typer.Option("--device", metavar="DEVICE", help="auto (a GPU where there is one), cpu, cuda, cuda:1, …")
]
PortOption = Annotated[
    int, typer.Option("--port", metavar="N", min=0, max=65535, help="Of the browser page; any that is free by default.")
]
RunArgument = Annotated[
    Path, typer.Argument(metavar="RUN", help="A run folder, such as runs/20260131T120000-quickstart.")
]


@app.command()
def new(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder to make; it must be empty if it exists.")],
    json: Json = False,
) -> None:
    """Write a lab folder with example rigs and protocols."""
    with Output(as_json=json) as output:
        from dmu_hw.cli.lab import write_lab  # noqa: PLC0415

        write_lab(folder, output)


@app.command()
def check(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE", help="Rig or protocol YAMLs, bundles (.dmu), run folders.")
    ],
    connect: Annotated[
        bool, typer.Option("--connect", help="Open and close the devices too; no light goes on.")
    ] = False,
    json: Json = False,
) -> None:
    """Say whether files are sound; list all that is wrong at once.

    A rig and a bundle are read, a protocol is planned on its rig, and of a run folder every checksum is compared.
    """
    with Output(as_json=json) as output:
        from dmu_hw.cli.check import check_files  # noqa: PLC0415

        check_files(files, output, connect=connect)


@app.command()
def devices(
    config: Annotated[
        Path | None,
        typer.Option(
            "--config", metavar="FILE.cfg", help="Load this Micro-Manager configuration and list devices, properties."
        ),
    ] = None,
    adapters: Annotated[
        Path | None, typer.Option("--adapters", metavar="DIR", help="Micro-Manager's folder, if it is not found.")
    ] = None,
    json: Json = False,
) -> None:
    """List what this machine sees.

    Serial ports, DMDs on USB, Micro-Manager. Nothing is lit or moved, but --config initialises its devices as
    Micro-Manager itself would.
    """
    with Output(as_json=json) as output:
        from dmu_hw.cli.devices import show_devices  # noqa: PLC0415

        show_devices(adapters, config, output)


@app.command()
def show(  # noqa: PLR0917 - options have names
    rig: Annotated[Path, typer.Argument(metavar="RIG", help="Such as devices/mine.yaml.")],
    pattern: Annotated[
        list[int] | None,
        typer.Option("--pattern", metavar="N", help="Which, 0 to 23; may be given several times. Default: 0, 8, 16."),
    ] = None,
    power: Annotated[
        float | None, typer.Option("--power", metavar="MW", help="Light up, and take a picture of each.")
    ] = None,
    exposure: Annotated[float, typer.Option("--exposure", metavar="MS", min=0.001, help="Of these pictures.")] = 10.0,
    seconds: Annotated[
        float, typer.Option("--seconds", metavar="S", min=0.0, help="How long each is shown where nothing is lit.")
    ] = 5.0,
    channel: Annotated[
        str | None, typer.Option("--channel", metavar="NAME", help="Which channel, where the rig has several.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where the pictures go.")] = Path("runs/show"),
    json: Json = False,
) -> None:
    """Show numbers on the mirrors, to be looked at.

    Are they where and what they should be? Without --power nothing is lit, and only the mirrors are opened.
    """
    with Output(as_json=json) as output:
        from dmu_hw.cli.show import Wish, show_patterns  # noqa: PLC0415

        wish = Wish(tuple(pattern or (0, 8, 16)), power, exposure, seconds, out)
        show_patterns(rig, channel, wish, output)


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
def calibrate(
    recipe: Annotated[
        Path | None, typer.Argument(metavar="RECIPE", help="Such as calibration/daily.yaml; not needed with --again.")
    ] = None,
    *,
    rig: Annotated[
        Path | None, typer.Option("--rig", metavar="RIG", help="A rig YAML to use instead of the recipe's.")
    ] = None,
    channel: Annotated[
        list[str] | None, typer.Option("--channel", metavar="C", help="Only this channel; may be given several times.")
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option("--only", metavar="ROUTINE", help="Only this one; may be given several times.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="The sample lies there: do not ask for it.")] = False,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Where the page's folder goes; runs by default.")
    ] = None,
    again: Annotated[
        Path | None, typer.Option("--again", metavar="RESULT", help="Fit a result's evidence again; nothing is lit.")
    ] = None,
    store: Annotated[bool, typer.Option("--store", help="With --again: keep what was found, as a new result.")] = False,
    json: Json = False,
) -> None:
    """Measure the instrument; fit, judge and store what was found.

    A sample is asked for before the light goes on. Runs believe the results that their rig YAML names. Exit status 3:
    something failed, or was not tried because of that.
    """
    with Output(as_json=json) as output:
        from dmu_hw.cli.calibrate import Wish, calibrate_rig  # noqa: PLC0415

        if again is not None:
            from dmu_hw.cli.again import fit_result  # noqa: PLC0415

            if rig or channel or only or yes:
                raise InputError(
                    "--again: fits what was measured; --rig, --channel, --only and --yes do not go with it"
                )
            fit_result(again, recipe, output, out=out, keep=store)
        if store:
            raise InputError("--store: goes with --again; what is measured is stored in any case")
        if recipe is None:
            raise InputError("RECIPE is missing; give one, such as calibration/daily.yaml")
        wish = Wish(rig, tuple(channel or ()), tuple(only or ()), yes=yes, out=out or Path("runs"))
        calibrate_rig(recipe, wish, output)


@app.command()
def train(
    protocol: Annotated[Path, typer.Argument(metavar="PROTOCOL", help="Such as protocols/train-simulated.yaml.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where the folder TIME-NAME goes.")] = Path("runs"),
    resume: Annotated[
        Path | None, typer.Option("--resume", metavar="FOLDER", help="Go on with a training that was cut.")
    ] = None,
    device: DeviceOption = "auto",
    json: Json = False,
) -> None:
    """Learn patterns and their inverse; leave a bundle.

    A checkpoint and a line of the log are kept at each validation. Under torchrun all its processes share each batch.
    """
    with Output(as_json=json) as output:
        from dmu_hw.cli.learn import train_lesson  # noqa: PLC0415

        train_lesson(protocol, out, resume, device, output)


@app.command()
def adapt(  # noqa: PLR0917 - options have names
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="A bundle, such as protocols/bundles/nuclei.dmu.")],
    rig: Annotated[Path, typer.Option("--rig", metavar="RIG", help="The instrument, with what was measured of it.")],
    channel: Annotated[
        str | None, typer.Option("--channel", metavar="NAME", help="Which channel, where the rig has several.")
    ] = None,
    protocol: Annotated[
        Path | None,
        typer.Option(
            "--protocol", metavar="TRAIN", help="What it was trained by, where the bundle itself does not say so."
        ),
    ] = None,
    pairs: Annotated[
        list[Path] | None,
        typer.Option("--pairs", metavar="RUN", help="A run with full references to learn from; may be given often."),
    ] = None,
    updates: Annotated[int, typer.Option("--updates", min=1, help="How long to learn.")] = 200,
    refine: Annotated[bool, typer.Option("--refine", help="Let the patterns learn too.")] = False,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Default: BUNDLE-RIG.dmu beside it.")
    ] = None,
    device: DeviceOption = "auto",
    json: Json = False,
) -> None:
    """Fit a bundle to the instrument as it was measured.

    The old one stays. Patterns stay as they are unless --refine. What is not better on held-back fields is
    not taken: then the new bundle holds the old inverse, for the numbers of this instrument.
    """
    with Output(as_json=json) as output:
        from dmu_hw.cli.adapt import Wish, adapt_bundle  # noqa: PLC0415

        wish = Wish(channel, protocol, tuple(pairs or ()), updates, refine, out, device)
        adapt_bundle(bundle, rig, wish, output)


@app.command()
def doubt(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="A bundle, such as protocols/bundles/nuclei.dmu.")],
    protocol: Annotated[
        Path | None,
        typer.Option(
            "--protocol", metavar="TRAIN", help="What it was trained by, where the bundle itself does not say so."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Default: BUNDLE-doubting.dmu beside it.")
    ] = None,
    device: DeviceOption = "auto",
    json: Json = False,
) -> None:
    """Teach a bundle when not to believe its images.

    It learns how far their pixels may be off, too. dmu train and dmu adapt do so by themselves; this is for bundles
    that were made before. Inverse and patterns stay as they are.
    """
    with Output(as_json=json) as output:
        from dmu_hw.cli.doubting import doubt_bundle  # noqa: PLC0415

        doubt_bundle(bundle, protocol, out, device, output)


@app.command()
def compare(
    protocol: Annotated[Path, typer.Argument(metavar="PROTOCOL", help="Such as protocols/compare-simulated.yaml.")],
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Where the folder NAME goes; what is in it is not done again.")
    ] = Path("runs/compare"),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say how many trainings and how long.")] = False,
    again: Annotated[bool, typer.Option("--again", help="Try trainings once more that failed.")] = False,
    json: Json = False,
) -> None:
    """Say whether learned patterns are worth it.

    Against fixed sets and a plain camera, with equal light, images, model and updates for all. The same command goes
    on with what was stopped or killed.
    """
    with Output(as_json=json) as output:
        from dmu_hw.cli.compare import compare_arms  # noqa: PLC0415

        compare_arms(protocol, out, output, dry_run=dry_run, again=again)


@app.command()
def sweep(
    protocol: Annotated[Path, typer.Argument(metavar="PROTOCOL", help="Such as protocols/sweep-simulated.yaml.")],
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Where the folder NAME goes; what is in it is not done again.")
    ] = Path("runs/sweeps"),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say how many trials and how long.")] = False,
    again: Annotated[bool, typer.Option("--again", help="Try trials once more that failed.")] = False,
    device: DeviceOption = "auto",
    json: Json = False,
) -> None:
    """Train with settings varied; leave a table and heat maps.

    The table holds all trials, the maps are over T and d. Any trial may be killed; the same command goes on. Exit
    status 3: some trials failed.
    """
    with Output(as_json=json) as output:
        from dmu_hw.cli.sweep import sweep_settings  # noqa: PLC0415

        sweep_settings(protocol, out, device, output, dry_run=dry_run, again=again)


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


@app.command()
def schema(
    kind: Annotated[
        str, typer.Argument(metavar="KIND", help="rig, run, train, compare, sweep or calibration.")
    ] = "run",
    json: Json = False,
) -> None:
    """Print the JSON schema of a YAML file, for editors."""
    with Output(as_json=json) as output:
        from dmu_hw.cli.check import print_schema  # noqa: PLC0415

        print_schema(kind, output)


@app.command()
def bench(
    what: Annotated[str, typer.Argument(metavar="WHAT", help="train: updates of lattice and of the published model.")],
    json: Json = False,
) -> None:
    """Time two ways of doing the same side by side."""
    with Output(as_json=json) as output:
        from dmu_hw.cli.bench import bench as measure  # noqa: PLC0415

        measure(what, output)


def _version(show: bool) -> None:
    if show:
        typer.echo(f"dmu-hw {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say the version.")
    ] = False,
) -> None:
    """Learned-illumination microscopy: learn patterns, show them, acquire, reconstruct."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a command; failures are one message and a status, never a traceback."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    _replace_what_a_terminal_cannot_show()
    with Output(as_json="--json" in given) as output, stoppable():
        try:
            stopped = app(given, prog_name="dmu", standalone_mode=False)
        except _UsageError as error:
            error.show()
            output.finish(REFUSED, problems=[error.format_message()])
        if stopped:  # typer took a Ctrl-C that came before the command began
            output.fail(FAILED, ["stopped"])
    raise SystemExit(DONE)


def _replace_what_a_terminal_cannot_show() -> None:
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


if __name__ == "__main__":
    main()
