"""The real MMCore with SimRig, an adapter of our own that is built here from the sources that pymmcore ships.

Where it cannot be built (no compiler, or no network and no cache) these tests are skipped; under CI that is an error.
Elsewhere than on Linux nobody has tried.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from platformdirs import user_cache_path

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "acquisition"))
sys.path.insert(0, str(Path(__file__).parents[1] / "faults"))
from mmrig import Pair, write_pair
from simworld import LIBRARY, SimRig

HERE = Path(__file__).parent
SOURCES = sorted([*HERE.glob("Sim*.h"), *HERE.glob("Sim*.cpp")])
MMDEVICE = ("MMDevice", "ModuleInterface", "Property", "DeviceUtils", "ImgBuffer")


class CannotBuildError(Exception):
    """Why there is no SimRig."""


def _ran(*command: object) -> None:
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    if done.returncode:
        raise CannotBuildError(f"{command[0]} failed: {(done.stderr or done.stdout)[-2000:]}")


def _mmdevice(cache: Path) -> Path:
    """The folder MMDevice of pymmcore's source distribution, fetched once: pip takes a minute over it."""
    name = f"pymmcore-{version('pymmcore')}"
    found = cache / name / "subprojects" / "mmdevice"
    if found.is_dir():
        return found
    with tempfile.TemporaryDirectory(dir=cache) as work:
        wanted = name.replace("-", "==")
        pip = (sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", "pymmcore")
        _ran(*pip, "-d", work, wanted)
        with tarfile.open(next(Path(work).glob("pymmcore-*.tar.gz"))) as archive:
            archive.extractall(work, filter="data")
        (Path(work) / name).rename(cache / name)
    return found


def _built(cache: Path) -> Path:
    """A folder with the library, built once for each state of its sources."""
    texts = [source.read_bytes() for source in SOURCES]
    key = hashlib.sha256(b"\0".join([version("pymmcore").encode(), *texts])).hexdigest()[:16]
    folder = cache / f"simrig-{key}"
    if folder.is_dir():
        return folder
    if shutil.which("g++") is None:
        raise CannotBuildError("there is no g++")
    mmdevice = _mmdevice(cache)
    with tempfile.TemporaryDirectory(dir=cache) as work:
        made = Path(work) / "made"
        made.mkdir()
        theirs = [mmdevice / f"{name}.cpp" for name in MMDEVICE]
        flags = ("-std=c++17", "-O1", "-fPIC", "-shared", "-fvisibility=hidden", f"-I{mmdevice}")
        _ran("g++", *flags, HERE / "SimRig.cpp", *theirs, "-o", made / LIBRARY, "-lpthread")
        made.rename(folder)
    return folder


@pytest.fixture(scope="session")
def simrig_folder() -> Path:
    """The folder that MMCore looks for adapters in: the library, and SimRig.cfg is beside these tests."""
    if sys.platform != "linux":
        pytest.skip("SimRig is built on Linux only")
    cache = user_cache_path("dmu-hw") / "tests"
    cache.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(cache / "lock"):  # of several workers one builds
            return _built(cache)
    except CannotBuildError as error:
        if os.environ.get("CI"):
            pytest.fail(f"SimRig cannot be built: {error}", pytrace=False)
        pytest.skip(f"SimRig cannot be built: {error}")


@pytest.fixture
def simrig(simrig_folder: Path) -> Iterator[SimRig]:
    """The library itself, with nothing that goes wrong and nothing counted."""
    library = SimRig(simrig_folder)
    library.connect(None)
    library.forget()
    yield library
    library.forget()


@pytest.fixture
def mm_rig_yaml(simrig_folder: Path, tmp_path: Path, rig_yaml: Callable[..., Path]) -> Callable[..., Pair]:
    """Writes two rigs, simulated and on MMCore: the small one with some keys of the simulated one changed, or any that
    is given; `mm` are changes to the one on MMCore."""

    def write(
        changes: dict[str, Any] | None = None, mm: dict[str, Any] | None = None, simulated: Path | None = None
    ) -> Pair:
        # MMCore cannot tell what a sequence has shown: the simulated mirrors must not either, or bursts would differ
        given = simulated or rig_yaml({"devices.dmd.read_back": False, "stepping": "camera", **(changes or {})})
        return write_pair(tmp_path, simrig_folder, given, mm)

    return write
