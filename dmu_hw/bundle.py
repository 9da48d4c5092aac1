"""NAME.dmu: patterns, the inverse that goes with them, and the optics both assume, in one safetensors file."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load, save

from dmu_hw import __version__
from dmu_hw.data import PatternStack
from dmu_hw.errors import InputError, Problem
from dmu_hw.files import Count, NonNegative, Positive, Settings, write_whole
from dmu_hw.physics.optics import Optics

Weights = dict[str, NDArray[Any]]
_FORMAT = 1
_PATTERNS = "patterns"
MAX_BUNDLE_BYTES = 2_000_000_000


class Header(Settings):
    """What a bundle says of itself."""

    format: int = _FORMAT
    name: str
    model: str
    """Inverse model, a plug-in of dmu_hw.models."""
    model_settings: dict[str, Any] = Field(default_factory=dict)
    patterns_name: str
    pattern_hashes: tuple[str, ...]
    tile_px: tuple[Count, Count]
    camera_pixel: Count
    optics: Optics
    """What the inverse assumes."""
    power_mw: Positive
    exposure_ms: Positive
    dose_mj_cm2: NonNegative
    trained_on: str = ""
    """What the inverse was computed from: a specimen and its hash."""
    metrics: dict[str, float] = Field(default_factory=dict)
    command: str = ""
    software: str = f"dmu-hw {__version__}"


@dataclass(frozen=True)
class Bundle:
    """Frozen: what was checked is what runs."""

    header: Header
    patterns: PatternStack
    weights: Weights = field(repr=False)

    @property
    def hash(self) -> str:
        return _content_hash(self.header.model_dump_json(), self.weights | {_PATTERNS: self.patterns.masks})

    def save(self, path: Path) -> None:
        """Write the file; packed patterns, weights as they are, and the hash of it all in the header."""
        tensors: Weights = {_PATTERNS: np.packbits(self.patterns.masks, axis=-1)}
        tensors |= {f"weights.{key}": np.ascontiguousarray(value) for key, value in self.weights.items()}
        metadata = {"dmu": self.header.model_dump_json(), "sha256": self.hash}
        write_whole(path, save(tensors, metadata=metadata))

    @classmethod
    def load(cls, path: Path) -> Bundle:
        """Read a file; anything that is not exactly what was saved is refused."""

        def refused(what: str) -> InputError:
            return InputError([Problem(str(path), what)])

        try:
            size = path.stat().st_size
            if size > MAX_BUNDLE_BYTES:
                raise refused(f"{size} bytes are too many for a bundle")
            raw = path.read_bytes()
            tensors = load(raw)
            metadata = _metadata(raw)
            header = Header.model_validate_json(metadata["dmu"])
        except OSError as error:
            raise refused(f"cannot be read: {error.strerror or error}") from None
        except (SafetensorError, KeyError, ValueError, ValidationError) as error:
            raise refused(f"is no sound bundle: {str(error).splitlines()[0]}") from None
        if header.format != _FORMAT:
            raise refused(f"has format {header.format}; this version reads {_FORMAT}")
        packed = tensors.pop(_PATTERNS, None)
        rows, columns = header.tile_px
        if packed is None or packed.shape != (len(header.pattern_hashes), rows, -(-columns // 8)):
            raise refused("its patterns do not have the shape that its header says")
        masks = np.unpackbits(packed, axis=-1, count=columns).astype(bool)
        stack = PatternStack(header.patterns_name, masks, header.camera_pixel)
        bundle = cls(header, stack, {key.removeprefix("weights."): value for key, value in tensors.items()})
        if bundle.hash != metadata.get("sha256") or stack.hashes != header.pattern_hashes:
            raise refused("its content does not match its checksum: the file is damaged")
        return bundle

    def misfits(self, optics: Optics) -> list[str]:
        """Every number of a rig that the bundle cannot live with, said with both values."""
        ours = self.header.optics
        pairs: list[tuple[str, float, float, float]] = [
            ("object_pixel_um", ours.object_pixel_um, optics.object_pixel_um, 0.01),
            ("sensor.gain_adu_per_e", ours.sensor.gain_adu_per_e, optics.sensor.gain_adu_per_e, 0.1),
            ("sensor.offset_adu", ours.sensor.offset_adu, optics.sensor.offset_adu, 0.1),
            ("emission width_um", _width_um(ours.emission), _width_um(optics.emission), 0.15),
            ("excitation width_um", _width_um(ours.excitation), _width_um(optics.excitation), 0.15),
            ("mirrors.leakage + 1", 1 + ours.mirrors.leakage, 1 + optics.mirrors.leakage, 0.02),
        ]
        return [
            f"{name}: the bundle assumes {mine:g}, the rig has {theirs:g} (allowed: {part:.0%} off)"
            for name, mine, theirs, part in pairs
            if abs(mine - theirs) > part * max(abs(mine), 1e-9)
        ]


def _width_um(psf: Any) -> float:
    """Standard deviation of a Gaussian, or of the one that is nearest to an Airy disc."""
    return float(psf.sigma_um) if psf.kind == "gaussian" else float(0.21 * psf.wavelength_nm * 1e-3 / psf.na)


def _metadata(raw: bytes) -> dict[str, str]:
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    return {str(key): str(value) for key, value in header["__metadata__"].items()}


def _content_hash(header: str, tensors: Weights) -> str:
    digest = hashlib.sha256(header.encode())
    for key in sorted(tensors):
        array = np.ascontiguousarray(tensors[key])
        digest.update(f"{key} {array.dtype.str} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
