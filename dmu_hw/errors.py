"""The exception tree.

DmuError
├── InputError      what was given is refused before anything moves; lists every problem (exit status 2)
├── DeviceError     a device refused, failed or vanished; names the device (exit status 1)
│   ├── DeviceTimeout   it did not answer within the stated time
│   └── SeveralDevicesError   more than one of them, each with its own error
└── RunError        a run could not go on, or its folder is damaged (exit status 1)
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: where it stands, and what was given against what is allowed."""

    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}" if self.where else self.what


class DmuError(Exception):
    """Everything this package raises on purpose."""


class InputError(DmuError):
    """Refused input: all problems at once, so that a user mends a file in one go."""

    def __init__(self, problems: Iterable[Problem] | str) -> None:
        self.problems = (Problem("", problems),) if isinstance(problems, str) else tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class DeviceError(DmuError):
    """A device refused, failed or vanished."""

    def __init__(self, device: str, what: str) -> None:
        self.device = device
        self.what = what
        super().__init__(f"{device}: {what}")


class DeviceTimeout(DeviceError):  # noqa: N818 - the word that people use
    """A device did not answer within the time it was given."""


class SeveralDevicesError(DeviceError):
    """All that failed, each by itself."""

    def __init__(self, names: Iterable[str], errors: Iterable[Exception]) -> None:
        nested = [error.errors if isinstance(error, SeveralDevicesError) else (error,) for error in errors]
        self.errors: tuple[Exception, ...] = tuple(one for each in nested for one in each)
        super().__init__(", ".join(names), "; ".join(map(str, self.errors)))


class RunError(DmuError):
    """A run could not go on, or what it left is damaged."""
