"""Where a core of Micro-Manager comes from: pycromanager starts one, a script lends one, or a bridge leads to one."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from dmu_hw.drivers.micromanager.settings import ConnectionSettings
from dmu_hw.errors import DeviceError

_BRIDGE_MS = 2000
_PORT = 4827
_LAST_LINES_S = 0.05
"""A camera says that its sequence has ended while its thread is on its last lines. DemoCamera, when it is unloaded
just then, takes the process with it."""
_OWN_METHODS = ("get_tagged_image", "pop_next_tagged_image")
"""What pycromanager puts into a core that it starts."""


class Source(Protocol):
    """A core for as long as a connection is open."""

    borrowed: bool
    """It belongs to somebody else, who gets it back as it was."""

    def start(self) -> Any: ...

    def stop(self) -> None: ...


class Headless:
    """A core of our own in this process, as pycromanager starts it: its `Core` and `Acquisition` find it too."""

    borrowed = False

    def __init__(self, name: str, settings: ConnectionSettings) -> None:
        self._name = name
        self._settings = settings
        self._core: Any = None

    def start(self) -> Any:
        from mmpycorex import is_pymmcore_active  # noqa: PLC0415 - a second of imports that only this needs
        from pycromanager import Core, start_headless  # noqa: PLC0415 - the same

        if is_pymmcore_active():
            what = "this process has a core of Micro-Manager already: close it, or lend it and say backend: given"
            raise DeviceError(self._name, what)
        adapters = self._adapters()
        _let_libraries_be_found(adapters)
        # the configuration is loaded by the connection: a core that fails to do so still has to be unloaded
        start_headless(str(adapters), python_backend=True, buffer_size_mb=self._settings.buffer_mb)
        self._core = Core()
        return self._core

    def stop(self) -> None:
        """All devices unloaded, and pycromanager ready to start another one: its engine is a singleton that stays."""
        if self._core is None:
            return
        from mmpycorex import launcher  # noqa: PLC0415 - loaded by now
        from pycromanager import stop_headless  # noqa: PLC0415 - the same
        from pycromanager.acquisition.acq_eng_py.internal.engine import Engine  # noqa: PLC0415 - the same

        core, self._core = self._core, None
        time.sleep(_LAST_LINES_S)
        try:
            stop_headless()
        except Exception as error:  # what a device raises that does not let itself be unloaded
            launcher._PYMMCORES.clear()  # noqa: SLF001 - or it would be taken for one that is open
            Engine.get_instance().shutdown()
            raise DeviceError(self._name, f"Micro-Manager does not unload its devices: {error}") from error
        finally:
            if hasattr(Engine, "singleton"):
                del Engine.singleton
            for name in _OWN_METHODS:  # they hold the core that holds them: its buffer and three threads would stay
                vars(core).pop(name, None)

    def _adapters(self) -> Path:
        given = self._settings.adapters
        if given is not None:
            if not given.is_dir():
                raise DeviceError(self._name, f"there is no folder of adapters {given}")
            return given
        from mmpycorex import find_existing_mm_install  # noqa: PLC0415 - as above

        installed = None
        with contextlib.suppress(ValueError):  # there is no installer for Linux
            installed = find_existing_mm_install()
        if installed:
            return Path(installed)
        try:
            import mm_test_adapters  # noqa: PLC0415 - few have it
        except ImportError:
            what = "no Micro-Manager was found: say adapters: its folder, or install mm-test-adapters"
            raise DeviceError(self._name, what) from None
        return Path(mm_test_adapters.device_adapter_path())


class Lent:
    """The core of a script, which goes on with it afterwards."""

    borrowed = True

    def __init__(self, name: str) -> None:
        self._name = name

    def start(self) -> Any:
        if not _LENT:
            what = "backend: given, and no core was lent: use dmu_hw.drivers.micromanager.lend(core)"
            raise DeviceError(self._name, what)
        return _LENT[-1]

    def stop(self) -> None:
        """It is not ours to stop."""


class Bridge:
    """The core of an open Micro-Manager, in another process."""

    borrowed = True

    def __init__(self, name: str, settings: ConnectionSettings) -> None:
        self._name = name
        self._settings = settings

    def start(self) -> Any:
        from mmpycorex import is_pymmcore_active  # noqa: PLC0415 - a second of imports that only this needs
        from pycromanager import Core  # noqa: PLC0415 - the same

        if is_pymmcore_active():  # or pycromanager would give us that one
            raise DeviceError(self._name, "this process has a core of its own: close it before asking for another")
        port = self._settings.port or _PORT
        try:
            socket.create_connection(("127.0.0.1", port), _BRIDGE_MS / 1e3).close()
            return Core(port=port, timeout=_BRIDGE_MS)
        except Exception as error:  # pycromanager raises nothing narrower
            what = f"no Micro-Manager answers on port {port}: is it open, with its ZMQ server switched on? ({error})"
            raise DeviceError(self._name, what) from error

    def stop(self) -> None:
        """It stays open; the bridge goes with the object."""


def source_of(name: str, settings: ConnectionSettings) -> Source:
    """As the rig says."""
    if settings.backend == "given":
        return Lent(name)
    return Headless(name, settings) if settings.backend == "python" else Bridge(name, settings)


_LENT: list[Any] = []
"""Cores that scripts lend, the latest last."""


@contextmanager
def lend(core: Any) -> Iterator[None]:
    """For the length of a block, rigs that say `backend: given` use this core: pymmcore's, pymmcore-plus's, or
    pycromanager's `Core()`. They give it back as they found it."""
    _LENT.append(core)
    try:
        yield
    finally:
        _LENT.remove(core)


def _let_libraries_be_found(folder: Path) -> None:
    """Windows looks for the libraries that adapters need along PATH."""
    before = os.environ.get("PATH", "")
    if str(folder) not in before.split(os.pathsep):
        os.environ["PATH"] = f"{before}{os.pathsep}{folder}"
