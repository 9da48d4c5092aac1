"""The core that pycromanager's `Acquisition` uses, and the datasets that it writes."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dmu_hw.errors import InputError


@contextmanager
def lent() -> Iterator[None]:
    """A core that the script has started is there for rigs that say `backend: given`."""
    try:
        from mmpycorex import Core, is_pymmcore_active  # noqa: PLC0415 - an extra, and it takes a second to load
    except ImportError as error:
        raise InputError(f"pycromanager is not installed: pip install 'dmu-hw[micromanager]' ({error})") from error
    from dmu_hw.drivers.micromanager import lend  # noqa: PLC0415 - only for those who have the extra

    with lend(Core()) if is_pymmcore_active() else contextlib.nullcontext():
        yield


def running_core() -> Any:
    """The one that pycromanager's `Acquisition` uses."""
    from mmpycorex import Core, is_pymmcore_active  # noqa: PLC0415 - loaded by now

    if not is_pymmcore_active():
        what = "there is no core of Micro-Manager in this process: let a connection of the rig say backend: python"
        raise InputError(f"{what}, or call start_headless(…, python_backend=True) first")
    return Core()


@contextmanager
def dataset_of(acquired: Any) -> Iterator[Any]:
    """The dataset of an acquisition, or the one that is given. One on disk is opened anew: what wrote it gives zeros
    for small frames that were saved after it had begun to read."""
    dataset = acquired.get_dataset() if hasattr(acquired, "get_dataset") else acquired
    path = getattr(dataset, "path", None)
    if path is None or not Path(path, "NDTiff.index").exists():  # in memory, or nothing was saved
        yield dataset
        return
    from ndstorage import Dataset  # noqa: PLC0415 - comes with pycromanager

    with contextlib.redirect_stdout(io.StringIO()):  # it prints
        written = Dataset(str(path))
    with contextlib.closing(written):
        yield written
