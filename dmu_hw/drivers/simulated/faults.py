"""Faults that a rig YAML or a test can inject, each striking once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Literal

from pydantic import Field

from dmu_hw.files import Settings

Kind = Literal[
    "dropped_frame",
    "repeated_frame",
    "shifted_sequence",
    "swapped_patterns",
    "repeated_pattern",
    "dark_pattern",
    "stale_memory",
    "lost_trigger",
    "stuck_busy",
    "camera_death",
    "refused_upload",
    "buffer_overflow",
    "interlock_open",
    "stuck_filter",
    "wrong_filter",
    "stuck_shutter",
]


class Fault(Settings):
    """Something goes wrong once."""

    kind: Kind
    at: Annotated[int, Field(ge=0)] = 0
    """How many such occasions (frames, pulses, moves, uploads, lightings, sequences, turns) pass well before it
    strikes."""
    by: Annotated[int, Field(ge=1)] = 1
    """Of sequences: by how many steps the order is shifted, or which step after the first goes wrong; of filters: by
    how many positions they turn too far."""


class Faults:
    """What is still to go wrong."""

    def __init__(self, faults: Iterable[Fault] = ()) -> None:
        self._waiting = list(faults)
        self._occasions: dict[str, int] = {}

    def add(self, kind: Kind, at: int = 0, by: int = 1) -> None:
        """Strike `at` occasions from now."""
        self._waiting.append(Fault(kind=kind, at=self._occasions.get(kind, 0) + at, by=by))

    def remember(self) -> dict[str, int]:
        """How many occasions have passed of each kind."""
        return dict(self._occasions)

    def recall(self, occasions: Mapping[str, int]) -> None:
        """So many have passed in an earlier life of this world; what was due among them has struck."""
        self._occasions = dict(occasions)
        self._waiting = [fault for fault in self._waiting if fault.at >= occasions.get(fault.kind, 0)]

    def strikes(self, kind: Kind) -> bool:
        """Ask at every occasion; True once when the fault is due."""
        return self.struck(kind) is not None

    def struck(self, kind: Kind) -> Fault | None:
        """The fault that is due at this occasion, if there is one."""
        occasion = self._occasions.get(kind, 0)
        self._occasions[kind] = occasion + 1
        due = [fault for fault in self._waiting if fault.kind == kind and fault.at == occasion]
        for fault in due:
            self._waiting.remove(fault)
        return due[0] if due else None
