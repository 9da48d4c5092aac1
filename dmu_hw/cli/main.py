"""`dmu`: every command, its options, and how failures are told. Loads neither torch nor a driver by itself."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Annotated, NoReturn

import click
import typer

from dmu_hw import __version__
from dmu_hw.cli.output import DONE, FAILED, REFUSED, Output
from dmu_hw.errors import DmuError, InputError

app = typer.Typer(
    name="dmu",
    help="Learned-illumination microscopy: learn patterns, show them, acquire, reconstruct.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Json = Annotated[bool, typer.Option("--json", help="Print one machine-readable object at the end.")]
RigOption = Annotated[Path | None, typer.Option("--rig", help="Use this rig instead of the protocol's.")]


@app.command()
def new(folder: Annotated[Path, typer.Argument(metavar="DIR")], json: Json = False) -> None:
    """Write a lab folder with example rigs, calibrations and protocols."""
    from dmu_hw.cli.lab import write_lab  # noqa: PLC0415

    write_lab(folder, Output(as_json=json))


@app.command()
def check(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...")],
    connect: Annotated[bool, typer.Option("--connect", help="Open the devices too.")] = False,
    json: Json = False,
) -> None:
    """Are these rigs, protocols, bundles and run folders sound? Lists everything that is wrong at once."""
    from dmu_hw.cli.check import check_files  # noqa: PLC0415

    check_files(files, Output(as_json=json), connect=connect)


@app.command()
def plan(protocol: Path, rig: RigOption = None, json: Json = False) -> None:
    """Shots and price (time, upload, dose, disk) of a protocol. Nothing is lit."""
    from dmu_hw.cli.acquire import show_plan  # noqa: PLC0415

    show_plan(protocol, rig, Output(as_json=json))


@app.command()
def run(
    protocol: Path,
    rig: RigOption = None,
    out: Annotated[Path, typer.Option("--out", help="Where the run folder goes.")] = Path("runs"),
    json: Json = False,
) -> None:
    """Acquire and reconstruct; leaves a run folder."""
    from dmu_hw.cli.acquire import run_protocol  # noqa: PLC0415

    run_protocol(protocol, rig, out, Output(as_json=json))


@app.command()
def verify(folder: Annotated[Path, typer.Argument(metavar="RUN")], json: Json = False) -> None:
    """Is a run folder what it was? Names every damaged frame."""
    from dmu_hw.cli.runs import verify_run  # noqa: PLC0415

    verify_run(folder, Output(as_json=json))


@app.command()
def export(
    folder: Annotated[Path, typer.Argument(metavar="RUN")],
    file: Annotated[Path, typer.Argument(metavar="FILE.ome.tif")],
    what: Annotated[
        str, typer.Option("--what", help="frames, reconstruction, plain, full or truth.")
    ] = "reconstruction",
    json: Json = False,
) -> None:
    """Write a run's images as OME-TIFF for Fiji."""
    from dmu_hw.cli.runs import export_run  # noqa: PLC0415

    export_run(folder, file, what, Output(as_json=json))


@app.command()
def schema(kind: Annotated[str, typer.Argument(metavar="[rig|run]")] = "run") -> None:
    """JSON schema of a YAML file, for editors."""
    from dmu_hw.cli.check import print_schema  # noqa: PLC0415

    print_schema(kind)


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
    """Learned-illumination microscopy."""


def main() -> NoReturn:
    """Run a command; failures are one message and a status, never a traceback."""
    output = Output(as_json="--json" in sys.argv)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        app(standalone_mode=False)
    except InputError as error:
        _fail(output, REFUSED, [str(problem) for problem in error.problems])
    except DmuError as error:
        _fail(output, FAILED, [str(error)])
    except click.ClickException as error:
        error.show(sys.stderr)
        _fail(output, REFUSED, [])
    except (KeyboardInterrupt, click.Abort):
        _fail(output, FAILED, ["stopped by the user; the light is off"])
    except OSError as error:
        _fail(output, FAILED, [f"{error.filename or 'file'}: {error.strerror or error}"])
    raise SystemExit(DONE)


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    """SIGTERM leaves through the same door as Ctrl-C, so that every `finally` puts the light off."""
    raise KeyboardInterrupt


def _fail(output: Output, status: int, messages: list[str]) -> NoReturn:
    for message in messages:
        output.say(f"error: {message}")
    output.finish(status, problems=messages)


if __name__ == "__main__":
    main()
