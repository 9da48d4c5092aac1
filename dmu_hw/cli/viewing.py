"""`--view` and `dmu view`: a page for the browser, and who it is shown to."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from dmu_hw.cli.output import DONE, Output
from dmu_hw.cli.runs import known_run
from dmu_hw.cli.session import Session, believing_instrument
from dmu_hw.cli.stop import poll
from dmu_hw.errors import InputError, Problem
from dmu_hw.lock import rig_held
from dmu_hw.runfolder import RunFolder

if TYPE_CHECKING:
    from dmu_hw.channels import Channel
    from dmu_hw.live import Live
    from dmu_hw.rig import Rig
    from dmu_hw.view.board import Board
    from dmu_hw.view.running import Running
    from dmu_hw.view.server import Site

_LOOK_S = 0.2


@contextmanager
def shown(
    session: Session, run: RunFolder, live: Live | None, output: Output, port: int | None
) -> Iterator[Running | None]:
    """A page of a run while it is taken, stored and reconstructed; without a port, none."""
    if port is None:
        yield None
        return
    from dmu_hw.view.running import Running  # noqa: PLC0415 - only who wants a page pays for it

    name, folder = session.protocol.name, str(run.path.resolve())
    running = Running(name, folder, session.plan, session.rig, session.belief)
    if live is not None:
        running.listen(live)
    with served(running, output, port):
        output.audience = running
        try:
            yield running
        except (Exception, KeyboardInterrupt) as error:
            running.fail(error)
            raise
        finally:
            output.audience = None


@contextmanager
def served(site: Site, output: Output, port: int) -> Iterator[None]:
    """A page in the browser, for the length of a block."""
    from dmu_hw.view.server import Server  # noqa: PLC0415 - as above

    with Server(site, port) as server, _heard(site.board):
        output.say(f"view: {server.url}")
        yield


def view_run(folder: Path, port: int, output: Output) -> None:
    """A run that has ended, until somebody has seen enough."""
    from dmu_hw.view.library import Library  # noqa: PLC0415 - as above

    library = Library(known_run(folder))
    with served(library, output, port):
        _until_stopped(output)


def view_rig(path: Path, channel: str | None, port: int, output: Output) -> None:
    """What the camera of a rig sees, until somebody has seen enough."""
    from dmu_hw.view.preview import Preview  # noqa: PLC0415 - as above

    output.lights = True
    rig, _ = believing_instrument(path)
    preview = Preview(rig, _channel(rig, channel))
    with ExitStack() as instrument:
        instrument.enter_context(rig_held(rig.file))
        instrument.enter_context(rig.opened())
        instrument.enter_context(served(preview, output, port))
        output.say("Ctrl-C ends it, in the dark")
        with suppress(KeyboardInterrupt):  # how it is meant to end
            preview.run(_asked)
    output.finish(DONE)


def _channel(rig: Rig, name: str | None) -> Channel:
    if name is None:
        return next(iter(rig.channels.values()))
    if name not in rig.channels:
        there = ", ".join(filter(None, rig.channels)) or "none by name"
        raise InputError([Problem("--channel", f"there is no {name!r}; there are: {there}")])
    return rig.channels[name]


def _asked() -> bool:
    """Raises when somebody wants it to end."""
    poll()
    return False


def _until_stopped(output: Output) -> None:
    output.say("Ctrl-C ends it")
    with suppress(KeyboardInterrupt):  # how it is meant to end
        while not _asked():
            time.sleep(_LOOK_S)
    output.finish(DONE)


@contextmanager
def _heard(board: Board) -> Iterator[None]:
    """Within, what is logged as a warning or worse stands on the page too."""
    handler = _Handler(board)
    logger = logging.getLogger("dmu_hw")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


class _Handler(logging.Handler):
    def __init__(self, board: Board) -> None:
        super().__init__(logging.WARNING)
        self.board = board

    def emit(self, record: logging.LogRecord) -> None:
        self.board.say(record.getMessage(), "error" if record.levelno >= logging.ERROR else "caution")
