"""What stands against a run, and what should be known before it, each with its place in the protocol."""

from __future__ import annotations

from pathlib import Path

from dmu_hw.errors import Problem
from dmu_hw.files import Document, Loc


class Objections:
    """Gathered while a run is planned, to be said at once."""

    def __init__(self, source: Document | Path) -> None:
        """`source` is where the protocol was read from."""
        self.problems: list[Problem] = []
        self.cautions: list[str] = []
        self._source = source

    def refuse(self, key: str, what: str) -> None:
        """One more problem, at the line of its key if the file has it."""
        self.problems.append(Problem(self._where(key), what))

    def warn(self, key: str, what: str) -> None:
        self.cautions.append(f"{self._where(key)}: {what}")

    def _where(self, key: str) -> str:
        """File, line and key; a key that the file does not have is said all the same."""
        if isinstance(self._source, Path):
            return f"{self._source}: {key}"
        loc: Loc = tuple(int(step) if step.isdigit() else step for step in key.split("."))
        lines = self._source.lines
        line = next((lines[loc[:n]] for n in range(len(loc), 0, -1) if loc[:n] in lines), 1)
        return f"{self._source.path}:{line}: {key}"
