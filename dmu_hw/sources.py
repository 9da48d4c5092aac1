"""What a protocol takes from other files, put in its place: positions, and plans in the words of useq-schema."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from dmu_hw.errors import InputError, Problem
from dmu_hw.files import Document, parse_yaml, read_text
from dmu_hw.listing import MAX_BYTES, read_positions
from dmu_hw.physics.optics import Optics
from dmu_hw.protocol import AnyProtocol
from dmu_hw.useqplan import read_useq


@dataclass
class Sources:
    """The texts of those files by the key that names them; of a run that is resumed its own copies."""

    texts: dict[str, str] = field(default_factory=dict)

    @classmethod
    def in_folder(cls, folder: Path) -> Sources:
        """Copies that `save` has left, if there are any."""
        return cls({path.stem: read_text(path, MAX_BYTES) for path in sorted(folder.glob("*.txt"))})

    def save(self, folder: Path, write: Callable[[Path, bytes], None]) -> None:
        if self.texts:
            folder.mkdir()
        for key, text in self.texts.items():
            write(folder / f"{key}.txt", text.encode())

    def text(self, key: str, path: Path) -> str:
        if key not in self.texts:
            self.texts[key] = read_text(path, MAX_BYTES)
        return self.texts[key]


def filled(protocol: AnyProtocol, document: Document, optics: Optics, sources: Sources) -> AnyProtocol:
    """The protocol that says everything itself."""
    changes: dict[str, Any] = {}
    if isinstance(protocol.positions, Path):
        changes["positions"] = read_positions(sources.text("positions", protocol.positions), protocol.positions)
    if protocol.useq is not None:
        changes |= {"useq": None, **read_useq(_useq_of(protocol, document, sources), _field_um(protocol, optics))}
    if not changes:
        return protocol
    fields: Mapping[str, Any] = {name: getattr(protocol, name) for name in type(protocol).model_fields}
    try:
        return type(protocol).model_validate({**fields, **changes})
    except ValidationError as error:
        key = "useq" if protocol.useq is not None else "positions"
        whats = [detail["msg"].removeprefix("Value error, ") for detail in error.errors(include_url=False)]
        raise InputError([Problem(document.where((key,)), what) for what in whats]) from None


def _useq_of(protocol: AnyProtocol, document: Document, sources: Sources) -> Document:
    if isinstance(protocol.useq, Path):
        return parse_yaml(sources.text("useq", protocol.useq), protocol.useq)
    return document.inside(("useq",))


def _field_um(protocol: AnyProtocol, optics: Optics) -> tuple[float, float]:
    rows, columns = protocol.field_px
    return columns * optics.object_pixel_um, rows * optics.object_pixel_um
