"""A worker process: reads jobs as lines of JSON, performs them, answers with records. Lives as long as its pool.

python -m dmu_hw.pool.worker FOLDER
"""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import threading
from pathlib import Path
from typing import BinaryIO

from dmu_hw.pool.jobs import Job, perform

READY = b"ready\n"


def main() -> None:
    folder = Path(sys.argv[1])
    jobs_in, records_out = _own_pipes()
    inbox: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(jobs_in, inbox), daemon=True).start()
    records_out.write(READY)
    while True:
        asked = json.loads(inbox.get())
        record = perform(Job(asked["call"], asked["config"]), folder)
        records_out.write(record.model_dump_json().encode() + b"\n")


def _own_pipes() -> tuple[BinaryIO, BinaryIO]:
    """The two pipes to the pool, put where neither a job's prints nor its children get at them."""
    jobs_in, records_out = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb", buffering=0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    return jobs_in, records_out


def _listen(jobs_in: BinaryIO, inbox: queue.SimpleQueue[bytes]) -> None:
    """Hand jobs on; when the pool is gone, killed perhaps, go too, with all children, in the middle of a job."""
    for line in jobs_in:
        inbox.put(line)
    if hasattr(os, "killpg") and os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(0)


if __name__ == "__main__":
    main()
