"""Bundles from anybody: whatever was done to one, it is loaded as it was saved or refused in one sentence, in a second
and with little memory; nothing in it is run, and nothing is written."""

from __future__ import annotations

import hashlib
import json
import random
import re
import sys
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from dmu_hw.bundle import Bundle, Header
from dmu_hw.cli.session import load_bundle
from dmu_hw.data import PatternStack
from dmu_hw.errors import InputError
from dmu_hw.physics.optics import Dye, GaussianPsf, Optics

BLANK = "0" * 64
SEAL = f'{{"sha256":"{BLANK}","header":'
ODD: list[Any] = [None, True, -1, 0, 3, 10**30, 1e308, 1e-308, "", "x" * 10_000, "../../x", "/etc/passwd", [], {}]
ODD += [
    "os.system",
    "evil.py",
    "../evil.py",
    "dmu_hw.models.ridge",
    "\0",
    "\ud800",
    [0, 0],
    [10**9, 10**9],
    [1, 10**15],
]


def sealed(tensors: dict[str, Any], header: str) -> bytes:
    """A file whose checksum is right, whatever its header says."""
    raw = save(tensors, metadata={"dmu": f"{SEAL}{header}}}"})
    return raw.replace(BLANK.encode(), hashlib.sha256(raw).hexdigest().encode(), 1)


@pytest.fixture
def good(tmp_path: Path) -> Path:
    masks = np.random.default_rng(0).random((3, 4, 6)) < 0.5
    stack = PatternStack("random", masks, 2)
    blur = GaussianPsf(sigma_um=0.3)
    optics = Optics(
        object_pixel_um=0.5, sensor_pixel_um=1.0, excitation=blur, emission=blur, dye=Dye(photons_per_um2_mw_ms=100.0)
    )
    facts: dict[str, Any] = {"name": "good", "model": "ridge", "patterns_name": "random", "camera_pixel": 2}
    light = {"power_mw": 0.1, "exposure_ms": 1.0, "dose_mj_cm2": 1.0}
    header = Header(**facts, **light, pattern_hashes=stack.hashes, tile_px=stack.tile_px, optics=optics)
    path = tmp_path / "good.dmu"
    Bundle(header, stack, {"kernels": np.ones((2, 3), np.float32)}).save(path)
    load_bundle(path)  # what is imported for that is no cost of the others
    return path


def refusal(path: Path) -> str:
    """Why it is refused; empty if it is not. Costs a second and 100 MB at most."""
    before = sorted(path.parent.rglob("*"))
    began_s = time.process_time()
    tracemalloc.start()
    try:
        load_bundle(path)
    except InputError as error:
        (problem,) = error.problems
        assert str(path) in problem.where
        assert len(str(problem)) < 1000 + len(str(path))
        return problem.what
    else:
        return ""
    finally:
        peak_bytes = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak_bytes < 100e6
        assert time.process_time() - began_s < 1.0
        assert sorted(path.parent.rglob("*")) == before


def mutated_bytes(raw: bytes, chance: random.Random) -> bytes:
    """Bytes changed, lost, doubled or put in."""
    for _ in range(chance.choice([1, 1, 2, 8])):
        at, length = chance.randrange(len(raw)), chance.choice([1, 8, 100])
        new = chance.choice([b"", bytes(chance.randrange(256) for _ in range(length)), raw[at:] + raw])
        raw = raw[:at] + new + raw[at + length :]
    return raw


def mutated_header(raw: bytes, chance: random.Random) -> bytes:
    """A header that says something else, under a checksum that is right."""
    length = int.from_bytes(raw[:8], "little")
    content = json.loads(json.loads(raw[8 : 8 + length])["__metadata__"]["dmu"])["header"]
    for _ in range(chance.choice([1, 1, 2])):
        place = content
        while isinstance(inner := place[key := chance.choice(list(place))], dict) and inner and chance.random() < 0.8:
            place = inner
        place[key] = chance.choice(ODD)
        if chance.random() < 0.2:
            del place[key]
    packed = np.packbits(np.random.default_rng(0).random((3, 4, 6)) < 0.5, axis=-1)
    return sealed({"patterns": packed}, json.dumps(content))


def mutate(good: Path, seeds: range) -> dict[str, int]:
    raw, ends = good.read_bytes(), {"loaded": 0, "refused": 0}
    path = good.with_name("bad.dmu")
    for seed in seeds:
        chance = random.Random(seed)
        path.write_bytes((mutated_bytes if seed % 2 else mutated_header)(raw, chance))
        said = refusal(path)
        assert not re.search(r"\w+Error:|Traceback", said), f"seed {seed}: {said}"
        ends["refused" if said else "loaded"] += 1
    return ends


def test_the_good_one_is_good(good: Path) -> None:
    assert refusal(good) == ""


def test_mutated_bundles(good: Path) -> None:
    assert mutate(good, range(150))["refused"] > 100


@pytest.mark.campaign
def test_a_thousand_mutated_bundles(good: Path, figure: Callable[..., None]) -> None:
    ends = mutate(good, range(1000, 2000))
    value = f"{ends['refused']} refused in one sentence each, {ends['loaded']} loaded (a word changed that may be any)"
    figure("R14", "1,000 mutated bundles", value, "no other end")


@pytest.mark.parametrize(
    "model", ["evil.py", "../evil.py", "os.path", "os.system", "subprocess", "antigravity.x", "this.x", "../../x", ""]
)
def test_evil_headers(good: Path, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name of a model cannot make a file of this computer run."""
    ran = good.with_name("ran")
    for folder in (good.parent, good.parent.parent):
        (folder / "evil.py").write_text(f"open({str(ran)!r}, 'w')\n")
    monkeypatch.chdir(good.parent)
    loaded = set(sys.modules)
    raw = good.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    content = json.loads(json.loads(raw[8 : 8 + length])["__metadata__"]["dmu"])["header"]
    packed = np.packbits(np.random.default_rng(0).random((3, 4, 6)) < 0.5, axis=-1)
    path = good.with_name("bad.dmu")
    path.write_bytes(sealed({"patterns": packed}, json.dumps({**content, "model": model})))
    assert refusal(path) != ""
    assert not ran.exists()
    assert not (set(sys.modules) - loaded) & sys.stdlib_module_names
    (good.parent.parent / "evil.py").unlink()
