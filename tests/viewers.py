"""Commands that show a page, and viewers without a browser, polite and otherwise."""

from __future__ import annotations

import http.client
import json
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from websockets.sync.client import ClientConnection, connect

from dmu_hw.cli.acquire import run_protocol
from dmu_hw.cli.output import Output
from dmu_hw.errors import InputError, Problem
from dmu_hw.view.board import Board
from dmu_hw.view.wire import Lamp, Word, unpacked


class Shelf:
    """A Site with nothing on it."""

    def __init__(self) -> None:
        self.board = Board()
        self.orders: list[Word | Lamp] = []
        self.reports = 0

    def about(self) -> dict[str, Any]:
        return {"mode": "run", "name": "shelf"}

    def report(self) -> None:
        self.reports += 1

    def order(self, order: Word | Lamp) -> None:
        self.orders.append(order)

    def image(self, wanted: Mapping[str, str], /) -> bytes:
        raise InputError([Problem(str(dict(wanted)), "is not there")])


class Guest:
    """Somebody who knows the address."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.host = f"127.0.0.1:{parts.port}"
        self.port = int(parts.port or 0)
        self.token = parse_qs(parts.query)["token"][0]
        self.cookie = ""

    def get(self, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
        """Exactly that path, as no browser would ask for it."""
        link = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            link.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            told = {"Host": self.host, **({"Cookie": self.cookie} if self.cookie else {}), **headers}
            for name, value in told.items():
                link.putheader(name, value)
            link.endheaders()
            answer = link.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        finally:
            link.close()

    def enter(self) -> None:
        """As a browser does: the cookie is kept."""
        status, headers, _ = self.get(f"/?token={self.token}")
        assert status == 200
        self.cookie = headers["set-cookie"].partition(";")[0]

    @contextmanager
    def socket(self, **changes: Any) -> Iterator[ClientConnection]:
        settings: dict[str, Any] = {
            "origin": f"http://{self.host}",
            "additional_headers": {"Cookie": self.cookie},
            "max_size": None,
            "open_timeout": 20,
            "compression": None,
            **changes,
        }
        with connect(f"ws://{self.host}/socket", **settings) as link:
            yield link


def heard(link: ClientConnection, kind: str, timeout_s: float = 20.0) -> dict[str, Any]:
    """The next message of a kind."""
    deadline_s = time.monotonic() + timeout_s
    while True:
        message = link.recv(timeout=max(0.01, deadline_s - time.monotonic()))
        assert isinstance(message, bytes)
        header, _ = unpacked(message)
        if header["kind"] == kind:
            return header


def say(link: ClientConnection, **order: Any) -> None:
    link.send(json.dumps(order))


def wait_for(true: Callable[[], object], timeout_s: float = 20.0) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline_s, "it did not come true in time"
        time.sleep(0.01)


# ---------------------------------------------------------------- commands


class Voice(Output):
    """A command's voice, in a thread of its own."""

    def __init__(self, work: Callable[[Output], object]) -> None:
        super().__init__(as_json=False)
        self.lines: list[str] = []
        self.status: object = None
        self._work = work
        self.thread = threading.Thread(target=self._run)

    def say(self, text: str) -> None:
        self.lines.append(text)
        if self.audience is not None:
            self.audience.say(text)

    def _run(self) -> None:
        try:
            with self:
                self._work(self)
        except SystemExit as end:
            self.status = end.code

    @property
    def url(self) -> str:
        return next((found[1] for line in self.lines if (found := re.match(r"view: (\S+)", line))), "")


@contextmanager
def viewed(work: Callable[[Output], object], stopping: threading.Event | None = None) -> Iterator[tuple[Voice, Guest]]:
    """A command that shows a page, and a guest on it. It must come to its end when the block has."""
    voice = Voice(work)
    voice.thread.start()
    wait_for(lambda: voice.url or not voice.thread.is_alive(), 60)
    assert voice.url, voice.lines
    guest = Guest(voice.url)
    guest.enter()
    try:
        yield voice, guest
    finally:
        if stopping is not None:
            stopping.set()
        voice.thread.join(60)
    assert not voice.thread.is_alive()


def running(path: Path, out: Path) -> Callable[[Output], object]:
    return lambda output: run_protocol(path, None, out, output, 0)
