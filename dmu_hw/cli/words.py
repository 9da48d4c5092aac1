"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

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
