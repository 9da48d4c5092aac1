"""The program as people call it: in this process, or in one of its own."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from dmu_hw.cli.main import main

COMMAND = (sys.executable, "-m", "dmu_hw.cli.main")
"""Begins a process that is the program."""


@dataclass(frozen=True)
class Said:
    """What a command said and how it ended."""

    status: int
    out: str
    err: str

    @property
    def told(self) -> dict[str, Any]:
        """The one object on standard output."""
        lines = self.out.splitlines()
        assert len(lines) == 1, f"one line of JSON wanted, got {self.out!r}"
        told = json.loads(lines[0])
        assert told["status"] == self.status
        return told  # type: ignore[no-any-return]


Dmu = Callable[..., Said]
"""The fixture `dmu`."""


def ended(*arguments: object) -> int:
    """Call it here; whatever it does, it ends with a status."""
    with pytest.raises(SystemExit) as end:
        main([str(argument) for argument in arguments])
    status = end.value.code or 0
    assert status in (0, 1, 2, 3)
    return int(status)
