"""Commands for the lab: its folder, its files, its devices."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dmu_hw.cli.output import Output
from dmu_hw.cli.words import Json

app = typer.Typer()


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
