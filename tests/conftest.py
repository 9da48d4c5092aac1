"""What many tests share: a small simulated rig that takes milliseconds a frame."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is loaded: pytest-xdist already uses all cores

import copy
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import settings

from dmu_hw.rig import Rig, load_rig

sys.path.insert(0, str(Path(__file__).parent))
from figures import Figure, keep, load
from program import Dmu, Said, ended

# the same examples in every CI run: what it finds can be found again, and what it passed, it passes
settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")

_STATE = tempfile.TemporaryDirectory(prefix="dmu-state-")
os.environ["DMU_STATE"] = _STATE.name  # locks and hours of this process and its children

SMALL: dict[str, Any] = {
    "kind": "rig",
    "name": "small",
    "optics": {
        "object_pixel_um": 0.5,
        "sensor_pixel_um": 0.5,
        "excitation": {"kind": "gaussian", "sigma_um": 0.3},
        "emission": {"kind": "gaussian", "sigma_um": 0.35},
        "mirrors": {"shape": [96, 128], "leakage": 0.01, "to_sample": {"matrix": [[0.5, 0.0], [0.0, 0.5]]}},
        "dye": {"photons_per_um2_mw_ms": 100.0, "background_photons_per_um2_mw_ms": 1.0},
        "sensor": {"gain_adu_per_e": 0.5, "read_noise_e": 1.0, "full_well_e": 120_000.0},
    },
    "connections": {
        "world": {
            "driver": "simulated",
            "specimen": {"kind": "nuclei", "seed": 3},
            "oversampling": 1,
            "sensor_shape": [64, 64],
        }
    },
    "devices": {
        role: {"driver": "simulated", "connection": "world"} for role in ("dmd", "camera", "light", "stage", "focus")
    },
    "stepping": "dmd",
}


@pytest.fixture
def rig_yaml(tmp_path: Path) -> Callable[..., Path]:
    """Writes the small rig with some keys changed, by dotted path; `...` takes a key away."""

    def write(changes: Mapping[str, Any] | None = None, name: str = "rig.yaml") -> Path:
        rig = copy.deepcopy(SMALL)
        for key, value in (changes or {}).items():
            *parents, last = key.split(".")
            place = rig
            for parent in parents:
                place = place.setdefault(parent, {})
            if value is ...:
                del place[last]
            else:
                place[last] = copy.deepcopy(value)  # or YAML would write an alias for what comes twice
        path = tmp_path / name
        path.write_text(yaml.safe_dump(rig, sort_keys=False))
        return path

    return write


@pytest.fixture
def small_rig(rig_yaml: Callable[..., Path]) -> Iterator[Callable[..., Rig]]:
    """Opens the small rig with some keys changed; closed when the test ends."""
    with ExitStack() as stack:
        yield lambda changes=None: stack.enter_context(Rig(load_rig(rig_yaml(changes))).opened())


@pytest.fixture
def dmu(capsys: pytest.CaptureFixture[str]) -> Dmu:
    """Calls the program; whatever it does, it ends with a status and without a traceback."""

    def call(*arguments: object) -> Said:
        capsys.readouterr()
        status = ended(*arguments)
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        return Said(status, said.out, said.err)

    return call


# ---------------------------------------------------------------- what campaigns measure

_FIGURES = pytest.StashKey[list[Figure]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--figures", action="store_true", help="keep what campaigns measure: tests/figures.py")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_FIGURES] = []


def pytest_sessionfinish(session: pytest.Session) -> None:
    if session.config.getoption("--figures") and session.config.stash[_FIGURES]:
        keep(session.config.stash[_FIGURES])


@pytest.fixture
def figure(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Tells a measured value: figure(row, what, value, allowed). With `--figures` it goes into the table."""

    def tell(row: str, what: str, value: str, allowed: str = "") -> None:
        sys.stdout.write(f"\n{row}: {what}: {value}{f' (allowed: {allowed})' if allowed else ''}\n")
        request.config.stash[_FIGURES].append(Figure(row, what, value, allowed, request.node.nodeid, load()))

    return tell
