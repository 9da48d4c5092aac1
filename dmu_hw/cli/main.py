"""`dmu`: the program. Loads neither torch nor a driver by itself."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated, Any, NoReturn

import typer

from dmu_hw import __version__
from dmu_hw.cli.commands import imaging, lab, learning
from dmu_hw.cli.output import DONE, FAILED, REFUSED, Output
from dmu_hw.cli.stop import stoppable

app = typer.Typer(
    name="dmu",
    help="Learned-illumination microscopy: learn patterns, show them, acquire, reconstruct.",
    epilog="Exit status: 0 done, 1 failed, 2 wrong usage or refused input, 3 done but incomplete.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for part in (lab, imaging, learning):
    app.add_typer(part.app)

_UsageError: Any = typer.BadParameter.__base__
"""Of click, or of the copy of it that newer versions of typer bring along."""


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
