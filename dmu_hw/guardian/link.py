"""The controller's end of the pipes to a guardian."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from dmu_hw.errors import DeviceError, DeviceTimeout
from dmu_hw.guardian.charge import Charge

_BEAT_S = 0.025
_START_S = 60.0
_END_S = 5.0
_LAST_S = 0.05
log = logging.getLogger(__name__)


class Link:
    """A running guardian. Several threads may ask at once; each gets its own answer."""

    def __init__(self, charge: Charge) -> None:
        """Start the process, and wait until it holds its light."""
        self.name = charge.name
        self.put_off = ""
        """Why the guardian put the light off by itself, until somebody has been told."""
        self._lock = threading.Lock()
        self._pipe = threading.Lock()
        self._gone = False
        self._last = 0
        self._waiting: dict[int, queue.SimpleQueue[dict[str, Any]]] = {0: queue.SimpleQueue()}
        self._lit = threading.Event()
        self._ended = False
        self._process = _started()
        try:
            self._threads = [threading.Thread(target=work, daemon=True) for work in (self._listen, self._beat)]
            for thread in self._threads:
                thread.start()
            self._write(charge.model_dump_json())
            self._answer(0, "its settings", _START_S)
        except BaseException:
            self.end()
            raise

    @property
    def alive(self) -> bool:
        return not (self._ended or self._gone) and self._process.poll() is None

    def ask(self, what: str, *given: object, longest_s: float) -> Any:
        """What the light gives, or the error that it raises."""
        with self._lock:
            if self._gone:
                raise self._lost()
            self._last += 1
            number = self._last
            self._waiting[number] = queue.SimpleQueue()
        self._write(json.dumps({"id": number, "do": what, "with": given}))
        return self._answer(number, what, longest_s)

    def beat(self, lit: bool) -> None:
        """Heartbeats are sent, and wanted, while the light is on."""
        (self._lit.set if lit else self._lit.clear)()

    def end(self) -> None:
        """Close the pipe: the guardian puts the light off and ends."""
        self._ended = True
        self._lit.set()  # or the thread would wait for ever
        process = self._process
        if process.stdin is not None:
            try:
                process.stdin.close()
            except OSError as error:
                log.warning("%s: the guardian's pipe was broken: %s", self.name, error)
        try:
            process.wait(_END_S)
        except subprocess.TimeoutExpired:
            log.critical("%s: its guardian does not end; LIGHT MAY BE ON", self.name)
            raise DeviceError(self.name, f"its guardian (process {process.pid}) does not end") from None
        for thread in self._threads:
            thread.join(_END_S)
        if process.stdout is not None:
            process.stdout.close()

    def _write(self, line: str) -> None:
        assert self._process.stdin is not None  # noqa: S101 - it was asked for
        left = line.encode() + b"\n"
        try:
            with self._pipe:
                while left:
                    left = left[self._process.stdin.write(left) :]
        except (OSError, ValueError) as error:
            raise self._lost() from error

    def _answer(self, number: int, what: str, longest_s: float) -> Any:
        try:
            answer = self._waiting[number].get(timeout=longest_s)
        except queue.Empty:
            message = f"its guardian did not answer {what!r} within {longest_s:g} s: the light's state is unknown"
            raise DeviceTimeout(self.name, message) from None
        finally:
            del self._waiting[number]
        if not answer:
            raise self._lost()
        if "error" in answer:
            timeout, device, message = answer["error"]
            raise (DeviceTimeout if timeout else DeviceError)(device, message)
        return answer["gives"]

    def _lost(self) -> DeviceError:
        with contextlib.suppress(subprocess.TimeoutExpired):  # its pipe may be closed a moment before it has ended
            self._process.wait(_LAST_S)
        status = self._process.poll()
        return DeviceError(self.name, f"its guardian is gone (status {status}): the light's state is unknown")

    def _listen(self) -> None:
        """Thread: hand out the answers until the guardian is gone."""
        assert self._process.stdout is not None  # noqa: S101 - it was asked for
        for line in self._process.stdout:
            answer = json.loads(line)
            if "put_off" in answer:
                self._tell(answer["put_off"], dark=answer["dark"])
            elif (box := self._waiting.get(answer["id"])) is not None:
                box.put(answer)
        if not self._ended:
            log.critical("%s: its guardian is gone; LIGHT MAY BE ON unless its own watchdog puts it off", self.name)
        with self._lock:
            self._gone = True
        for box in list(self._waiting.values()):
            box.put({})

    def _tell(self, why: str, *, dark: bool) -> None:
        self.put_off = why
        if dark:
            log.error("%s: its guardian put it off: %s", self.name, why)
        else:
            log.critical("LIGHT MAY BE ON: %s does not obey its guardian, who put it off: %s", self.name, why)

    def _beat(self) -> None:
        """Thread: a line break every few milliseconds while the light is on."""
        while self._lit.wait() and not self._ended:
            try:
                self._write("")
            except DeviceError:
                return  # whoever asks next is told
            time.sleep(_BEAT_S)


def _started() -> subprocess.Popen[bytes]:
    """A process of this Python that sees the same modules, out of reach of this terminal's Ctrl-C."""
    modules = os.pathsep.join(place or str(Path.cwd()) for place in sys.path)
    flags = ("CREATE_NO_WINDOW", "CREATE_NEW_PROCESS_GROUP", "HIGH_PRIORITY_CLASS")  # elsewhere it hurries by itself
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "dmu_hw.guardian"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,
        env={**os.environ, "PYTHONPATH": modules},
        start_new_session=True,  # where there are such
        creationflags=sum(getattr(subprocess, flag, 0) for flag in flags),
    )
