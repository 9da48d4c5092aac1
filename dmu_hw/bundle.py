"""NAME.dmu: patterns, the inverse that goes with them, and the optics both assume, in one safetensors file."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load, save

from dmu_hw import __version__
from dmu_hw.data import PatternStack
from dmu_hw.errors import InputError, Problem
from dmu_hw.files import Count, NonNegative, Positive, Settings, write_whole
from dmu_hw.physics.optics import Optics, Psf

Weights = dict[str, NDArray[Any]]
_FORMAT = 1
_PATTERNS = "patterns"
_WEIGHTS = "weights."
_LATER = ("lesson", "adapted")
_FAR = 2.0
"""By what factor light or noise may differ without a word."""
TAUGHT_VERSION = 1
"""Of what bundles look at to know when not to be believed: what was learned of other things says nothing of these."""
_TAUGHT = "doubt.version"
_STALE = (
    "what the bundle knows of its own errors was learned by another version of dmu-hw and is not used: dmu doubt "
    "teaches it anew"
)
MAX_BUNDLE_BYTES = 2_000_000_000


class Adaptation(Settings):
    """To which instrument a bundle was fitted, and what it gained."""

    from_bundle: str
    """Hash of the one that it was made of."""
    rig: str
    objective: str
    channel: str
    results: dict[str, str] = Field(default_factory=dict)
    """Routine → hash of the calibration result that was believed."""
    pairs: Annotated[int, Field(ge=0)] = 0
    """Bursts with references, taken on the instrument, that it learned from."""
    at: str
    before: dict[str, float]
    """Scores of the old bundle on held-back fields, seen by the instrument as it is believed to be…"""
    after: dict[str, float]
    """…and of this one."""


class Header(Settings):
    """What a bundle says of itself."""

    format: int = _FORMAT
    name: str
    task: Literal["image", "segment"] = "image"
    """segment: the weights hold a segmenter too, and `model` makes what it looks at."""
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
    lesson: dict[str, Any] | None = None
    """The training protocol, where all that it needs stands in it; null: it learned from somebody's images."""
    adapted: Adaptation | None = None
    command: str = ""
    software: str = f"dmu-hw {__version__}"

    @property
    def text(self) -> str:
        """As JSON. What came later than the format and is not there is left out: a bundle that was made before keeps
        its hash."""
        return self.model_dump_json(exclude={name for name in _LATER if getattr(self, name) is None})


@dataclass(frozen=True, eq=False)
class Bundle:
    """Frozen: what was checked is what runs."""

    header: Header
    patterns: PatternStack
    weights: Weights = field(repr=False)

    @cached_property
    def hash(self) -> str:
        """Of the content, however a file lays it out."""
        digest = hashlib.sha256(self.header.text.encode())
        tensors = self.weights | {_PATTERNS: self.patterns.masks}
        for key in sorted(tensors):
            digest.update(f"{key} {tensors[key].dtype.str} {tensors[key].shape}".encode())
            digest.update(tensors[key].tobytes())
        return digest.hexdigest()

    def save(self, path: Path) -> None:
        """Write the file: packed patterns, weights as they are, header and checksum."""
        tensors: Weights = {_PATTERNS: np.packbits(self.patterns.masks, axis=-1)}
        tensors |= {f"{_WEIGHTS}{key}": np.asarray(value, order="C") for key, value in self.weights.items()}
        # one entry only: safetensors writes several in an order that changes from process to process
        metadata = {"dmu": f'{{"sha256":"{_BLANK.decode()}","header":{self.header.text}}}'}
        write_whole(path, _sealed(save(tensors, metadata=metadata)))

    @classmethod
    def load(cls, path: Path) -> Bundle:
        """Read a file; anything that is not exactly what was saved is refused."""
        try:
            return _unpacked(_read(path))
        except OSError as error:
            raise InputError([Problem(str(path), f"cannot be read: {error.strerror or error}")]) from None
        except _UnsoundError as error:
            raise InputError([Problem(str(path), str(error))]) from None

    def misfits(self, optics: Optics) -> list[str]:
        """Every number of a rig that the bundle cannot live with, said with both values."""
        ours = self.header.optics
        # blur is seen through object pixels: of one that is narrower than they are, little is seen
        pixel_um = ours.object_pixel_um / math.sqrt(12)
        pairs = [
            ("object_pixel_um", ours.object_pixel_um, optics.object_pixel_um, 0.01, 0.0),
            ("sensor.gain_adu_per_e", ours.sensor.gain_adu_per_e, optics.sensor.gain_adu_per_e, 0.1, 0.0),
            ("sensor.offset_adu", ours.sensor.offset_adu, optics.sensor.offset_adu, 0.1, 0.0),
            ("emission width_um", _width_um(ours.emission), _width_um(optics.emission), 0.15, pixel_um),
            ("excitation width_um", _width_um(ours.excitation), _width_um(optics.excitation), 0.15, pixel_um),
            ("mirrors.leakage + 1", 1 + ours.mirrors.leakage, 1 + optics.mirrors.leakage, 0.02, 0.0),
        ]
        found = [
            f"{name}: the bundle assumes {mine:g}, the rig has {theirs:g} (allowed: {part:.0%} off)"
            for name, mine, theirs, part, behind in pairs
            if abs(math.hypot(mine, behind) - math.hypot(theirs, behind)) > part * max(math.hypot(mine, behind), 1e-9)
        ]
        if self.header.camera_pixel % optics.sensor_ratio:
            found.append(
                f"camera_pixel: the bundle needs camera pixels of {self.header.camera_pixel} object pixels, "
                f"the rig's sensor has {optics.sensor_ratio}, and binning only multiplies"
            )
        return found

    def cautions(self, optics: Optics, power_mw: float, exposure_ms: float) -> list[str]:
        """What makes the estimate worse than it could be, though not wrong: light or noise unlike those assumed.

        The inverse weighs detail against noise for the light level that it was computed for."""
        ours = self.header.optics
        pairs = [
            (
                "photoelectrons per object pixel and frame",
                _electrons(ours, self.header.power_mw, self.header.exposure_ms),
                _electrons(optics, power_mw, exposure_ms),
            ),
            ("read noise of a camera pixel in electrons", self._read_noise_e(ours), self._read_noise_e(optics)),
        ]
        taught = self.weights.get(_TAUGHT)
        told = [] if taught is None or int(taught) == TAUGHT_VERSION else [_STALE]
        return told + [
            f"{name}: the bundle is made for {mine:.3g}, this run has {theirs:.3g}; one made for that would give "
            "better images"
            for name, mine, theirs in pairs
            if max(mine, theirs) > _FAR * min(mine, theirs)
        ]

    def _read_noise_e(self, optics: Optics) -> float:
        """Not below one electron, where photon noise hides it."""
        return max(1.0, optics.sensor.read_noise_of(max(1, self.header.camera_pixel // optics.sensor_ratio)))


def _electrons(optics: Optics, power_mw: float, exposure_ms: float) -> float:
    return optics.photons_per_pixel(power_mw, exposure_ms) * optics.sensor.quantum_efficiency


def _width_um(psf: Psf) -> float:
    """Standard deviation of a Gaussian, or of the one that is nearest to an Airy disc."""
    return psf.sigma_um if psf.kind == "gaussian" else 0.21 * psf.wavelength_nm * 1e-3 / psf.na


# ---------------------------------------------------------------- the file

_SEAL = b'{\\"sha256\\":\\"'
"""Where the checksum of the whole file begins, the checksum itself counted as zeros."""
_BLANK = b"0" * 64


class _UnsoundError(Exception):
    """Why some bytes are no bundle."""


def _sealed(raw: bytes) -> bytes:
    """The file with its checksum in place of zeros."""
    place = raw.index(_SEAL) + len(_SEAL)
    return raw[:place] + hashlib.sha256(raw).hexdigest().encode() + raw[place + len(_BLANK) :]


def _read(path: Path) -> bytes:
    size = path.stat().st_size
    if size > MAX_BUNDLE_BYTES:
        raise _UnsoundError(f"{size:,} bytes are too many for a bundle, {MAX_BUNDLE_BYTES:,} at most")
    return path.read_bytes()


def _unpacked(raw: bytes) -> Bundle:
    """The bundle, if every byte is as it was saved."""
    try:
        tensors = load(raw)
        metadata = _metadata(raw)
    except (SafetensorError, KeyError, ValueError) as error:
        raise _UnsoundError(f"is no bundle, or damaged: {str(error).splitlines()[0]}") from None
    if "dmu" not in metadata:
        raise _UnsoundError("is a safetensors file, but no bundle of dmu")
    place = raw.find(_SEAL) + len(_SEAL)
    given, blank = raw[place : place + len(_BLANK)], raw[:place] + _BLANK + raw[place + len(_BLANK) :]
    if hashlib.sha256(blank).hexdigest().encode() != given:
        raise _UnsoundError("does not match its checksum: the file is damaged or was changed")
    header = _header(metadata["dmu"])
    return Bundle(header, _patterns(header, tensors.pop(_PATTERNS, None)), _weights(tensors))


def _metadata(raw: bytes) -> dict[str, Any]:
    """What safetensors keeps beside tensors; its `load` checks it but does not hand it out."""
    length = int.from_bytes(raw[:8], "little")
    metadata: dict[str, Any] = json.loads(raw[8 : 8 + length]).get("__metadata__", {})
    return metadata


def _header(text: str) -> Header:
    try:
        content = json.loads(text)["header"]
        if content["format"] != _FORMAT:
            raise _UnsoundError(f"has format {content['format']}; this version reads format {_FORMAT}")
        return Header.model_validate_json(json.dumps(content))
    except (KeyError, TypeError, ValueError) as error:
        what = _first(error) if isinstance(error, ValidationError) else str(error)
        raise _UnsoundError(f"its header cannot be used: {what}") from None


def _first(error: ValidationError) -> str:
    detail = error.errors(include_url=False)[0]
    return f"{'.'.join(map(str, detail['loc']))}: {detail['msg']}"


def _patterns(header: Header, packed: NDArray[Any] | None) -> PatternStack:
    rows, columns = header.tile_px
    shape = (len(header.pattern_hashes), rows, -(-columns // 8))
    if packed is None or packed.shape != shape or packed.dtype != np.uint8:
        raise _UnsoundError("its patterns do not have the shape that its header says")
    try:
        masks = np.unpackbits(packed, axis=-1, count=columns).astype(bool)
        stack = PatternStack(header.patterns_name, masks, header.camera_pixel)
    except ValueError as error:
        raise _UnsoundError(f"its patterns cannot be used: {error}") from None
    if stack.hashes != header.pattern_hashes:
        raise _UnsoundError("its patterns are not those that its header names")
    return stack


def _weights(tensors: Weights) -> Weights:
    foreign = [key for key in tensors if not key.startswith(_WEIGHTS)]
    if foreign:
        raise _UnsoundError(f"holds what belongs to no bundle: {', '.join(sorted(foreign)[:5])}")
    return {key.removeprefix(_WEIGHTS): value for key, value in tensors.items()}
