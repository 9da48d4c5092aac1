"""The guardian's process: requests come on standard input, a line of JSON each, and are answered on standard output.

An empty line is a heartbeat. The first line says which light it is.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import sys
import threading
import time
from typing import Any

from dmu_hw.errors import DmuError
from dmu_hw.guardian.charge import Charge
from dmu_hw.guardian.keeper import Keeper

_HURRY = -10


def main() -> None:
    """Serve one controller until it is gone."""
    wire = os.dup(1)
    os.dup2(2, 1)  # what a driver prints is no answer
    inbox: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    _survive(inbox)

    def say(answer: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):  # who is gone cannot be told; the end of its pipe says so as well
            os.write(wire, json.dumps(answer).encode() + b"\n")

    try:
        charge = Charge.model_validate_json(sys.stdin.buffer.readline())
        light = charge.built()
    except (DmuError, ValueError) as error:
        say({"id": 0, "error": [False, "light", f"cannot be built in its guardian: {error}"]})
        return
    keeper = Keeper(light, charge.name, say)
    threading.Thread(target=_listen, args=(keeper, inbox), daemon=True).start()
    say({"id": 0, "gives": None})
    keeper.serve(inbox)


def _survive(inbox: queue.SimpleQueue[bytes | None]) -> None:
    """A Ctrl-C is for the controller; who ends this process by a signal gets a dark light first."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for name in ("SIGTERM", "SIGHUP", "SIGBREAK"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), lambda *_: inbox.put(None))
    if hasattr(os, "nice"):
        with contextlib.suppress(OSError):  # few systems let everybody hurry
            os.nice(_HURRY)


def _listen(keeper: Keeper, inbox: queue.SimpleQueue[bytes | None]) -> None:
    """Everything that comes is a sign of life; a line that was cut is none."""
    for line in sys.stdin.buffer:
        keeper.heard_s = time.monotonic()
        if line.strip() and line.endswith(b"\n"):
            inbox.put(line)
    inbox.put(None)


if __name__ == "__main__":
    main()
    os._exit(0)  # Python's own way out would stumble over the thread that still reads
