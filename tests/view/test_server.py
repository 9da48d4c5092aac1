"""The server among viewers who are polite, slow, foreign, or mad."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
from viewers import Guest, Shelf, heard, say, wait_for
from websockets.exceptions import ConnectionClosed, InvalidStatus

from dmu_hw.errors import InputError
from dmu_hw.view.server import Server
from dmu_hw.view.wire import Word

MODULES = ("main", "run", "look", "rig", "picture", "map", "keys", "wire", "words", "colours", "outlines")


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


@pytest.fixture
def guest(shelf: Shelf) -> Iterator[Guest]:
    with Server(shelf) as server:
        guest = Guest(server.url)
        guest.enter()
        yield guest


# ---------------------------------------------------------------- those who may


def test_a_page_and_all_that_it_needs(guest: Guest) -> None:
    status, headers, page = guest.get("/")
    assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert b"static/main.js" in page
    for name in MODULES:
        status, headers, _ = guest.get(f"/static/{name}.js")
        assert (status, headers["content-type"].partition(";")[0]) == (200, "text/javascript")
    assert guest.get("/static/view.css")[0] == 200
    assert guest.get("/about")[2] == b'{"mode":"run","name":"shelf"}'


def test_every_answer_says_what_browsers_must_heed(guest: Guest) -> None:
    for path in ("/", "/static/main.js", "/about", "/image?store=x", "/nowhere"):
        headers = guest.get(path)[1]
        assert headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'; style-src 'self'")
        assert "unsafe" not in headers["content-security-policy"]
        assert (headers["x-content-type-options"], headers["cache-control"]) == ("nosniff", "no-store")
        assert "server" not in headers


def test_the_cookie_is_none_that_scripts_or_other_sites_can_use(guest: Guest) -> None:
    cookie = guest.get(f"/?token={guest.token}")[1]["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie


def test_news_and_orders(shelf: Shelf, guest: Guest) -> None:
    shelf.board.tell("state", {"number": 1})
    with guest.socket() as link:
        assert heard(link, "state")["number"] == 1
        shelf.board.tell("state", {"number": 2})
        assert heard(link, "state")["number"] == 2
        say(link, do="abort")
        wait_for(lambda: shelf.orders == [Word(do="abort")])
        wait_for(lambda: shelf.reports)
    wait_for(lambda: shelf.board.viewers == 0)
    reports = shelf.reports
    time.sleep(0.6)
    assert shelf.reports <= reports + 1, "nobody looks, nobody reports"


def test_a_viewer_is_told_that_it_is_over(shelf: Shelf) -> None:
    with Server(shelf) as server:
        guest = Guest(server.url)
        guest.enter()
        with guest.socket() as link:
            shelf.board.tell("state", {"number": 0})
            heard(link, "state")
            shelf.board.tell("state", {"number": 1})
            server.__exit__(None, None, None)
            assert heard(link, "state")["number"] == 1, "the last word first"
            with pytest.raises(ConnectionClosed):
                link.recv(timeout=10)
            assert link.close_code == 1000


def test_a_port_of_ones_own(shelf: Shelf) -> None:
    with Server(shelf) as first, pytest.raises(InputError, match=str(first.port)):
        Server(Shelf(), first.port)
    with Server(Shelf(), first.port) as second:
        assert second.port == first.port


# ---------------------------------------------------------------- those who may not


@pytest.mark.parametrize("path", ["/", "/static/main.js", "/about", "/image?store=frames", "/?token=wrong", "/?token="])
def test_without_the_secret_there_is_nothing(guest: Guest, path: str) -> None:
    guest.cookie = ""
    status, headers, body = guest.get(path)
    assert status == 403
    assert "set-cookie" not in headers
    assert guest.token.encode() not in body


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", ""])
def test_a_foreign_host(guest: Guest, host: str) -> None:
    assert guest.get("/", Host=host)[0] in (400, 403)
    assert guest.get(f"/?token={guest.token}", Host=host)[0] in (400, 403)


def test_a_foreign_origin(guest: Guest) -> None:
    assert guest.get("/about", Origin="http://evil.example")[0] == 403
    assert guest.get("/about", Origin=f"http://{guest.host}")[0] == 200


@pytest.mark.parametrize(
    "path",
    [
        "/static/../wire.py",
        "/static/..%2fwire.py",
        "/static/%2e%2e/wire.py",
        "/static/....//wire.py",
        "/static//etc/passwd",
        "/static/..\\wire.py",
        "/static/index.html/../../wire.py",
        "/../../../../etc/passwd",
        "/static/%00main.js",
        "/image?store=../../etc/passwd",
        "/image?store=..%2f..&field=0",
    ],
)
def test_no_path_leads_elsewhere(guest: Guest, path: str) -> None:
    status, _, body = guest.get(path)
    assert status == 404
    assert b"root:" not in body
    assert b"import" not in body


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE"])
def test_nothing_but_reading(guest: Guest, method: str) -> None:
    assert guest.get("/about", method)[0] == 405


@pytest.mark.parametrize(
    "changes",
    [
        {"origin": None},
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"additional_headers": {}},
        {"additional_headers": {"Cookie": "dmu-00000000=wrong"}},
    ],
)
def test_sockets_of_strangers(shelf: Shelf, guest: Guest, changes: dict[str, object]) -> None:
    with pytest.raises(InvalidStatus) as refused, guest.socket(**changes):
        pass
    assert refused.value.response.status_code == 403
    assert shelf.board.viewers == 0


def junk(number: int) -> str | bytes:
    kinds = ("", "{", '{"do":"abort","x":1}', '{"do":"abor"}', "\x00" * 50, "[" * 200, '"abort"', b"\xff\x00abort")
    return kinds[number % len(kinds)]


def test_ten_thousand_messages_of_junk(shelf: Shelf, guest: Guest) -> None:
    """Shown out again and again; who is polite notices nothing."""
    sent = doors = 0
    with guest.socket() as polite:
        while sent < 10_000:
            doors += 1
            with guest.socket() as link:
                try:
                    for _ in range(2000):
                        link.send(junk(sent))
                        sent += 1
                except ConnectionClosed:
                    continue
        assert doors > 5
        shelf.board.tell("state", {"number": 1})
        assert heard(polite, "state")["number"] == 1
        say(polite, do="pause")
        wait_for(lambda: shelf.orders == [Word(do="pause")])
    wait_for(lambda: shelf.board.viewers == 0)


def test_a_message_without_end(shelf: Shelf, guest: Guest) -> None:
    with guest.socket() as link:
        link.send("x" * 5000)
        with pytest.raises(ConnectionClosed):
            link.recv(timeout=10)
        assert link.close_code == 1009
    assert not shelf.orders


def test_noise_on_the_line(shelf: Shelf, guest: Guest) -> None:
    for size in (10, 1000, 100_000):
        with socket.create_connection(("127.0.0.1", guest.port), timeout=5) as link:
            try:
                link.sendall(os.urandom(size))
            except ConnectionError:
                continue
    assert guest.get("/about")[0] == 200


def test_too_many_are_turned_away(shelf: Shelf, guest: Guest) -> None:
    shelf.board.viewers = 16
    with pytest.raises(InvalidStatus), guest.socket():
        pass
    shelf.board.viewers = 0
    with guest.socket():
        wait_for(lambda: shelf.board.viewers == 1)


# ---------------------------------------------------------------- those who are slow


def stalled(guest: Guest) -> socket.socket:
    """A viewer who takes nothing of what he is sent."""
    link = socket.socket()
    link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    link.connect(("127.0.0.1", guest.port))
    lines = (
        "GET /socket HTTP/1.1",
        f"Host: {guest.host}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version: 13",
        f"Origin: http://{guest.host}",
        f"Cookie: {guest.cookie}",
    )
    link.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
    return link


def test_one_who_stalls_holds_up_nobody_and_hoards_nothing(shelf: Shelf, guest: Guest) -> None:
    made: list[int] = []

    def put(number: int) -> None:
        shelf.board.put("image", lambda: (made.append(number), ({"number": number}, np.zeros(1_000_000, np.uint8)))[1])

    with stalled(guest):
        wait_for(lambda: shelf.board.viewers == 1)
        for number in range(30):
            put(number)
            time.sleep(0.04)
        assert len(made) <= 10, "a few lie in the buffers of the system, the rest was never made"
        with guest.socket() as link:
            heard(link, "image")
            for number in range(30, 33):
                put(number)
                assert heard(link, "image")["number"] == number
            say(link, do="abort")
            wait_for(lambda: shelf.orders)


def test_the_end_waits_for_no_viewer(shelf: Shelf) -> None:
    with Server(shelf) as server:
        guest = Guest(server.url)
        guest.enter()
        with stalled(guest), guest.socket():
            wait_for(lambda: shelf.board.viewers == 2)
            for _ in range(20):
                shelf.board.put("image", lambda: ({}, np.zeros(3_000_000, np.uint8)))
                time.sleep(0.02)
            began_s = time.monotonic()
            server.__exit__(None, None, None)
            assert time.monotonic() - began_s < 2.9, "half a second for last words, on an idle machine"
    assert "view" not in [thread.name for thread in threading.enumerate()]
