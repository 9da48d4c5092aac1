"""Who may look."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmu_hw.view.gate import Gate

GATE = Gate()
KEPT = GATE.cookie.partition(";")[0]
OWN = {"host": "127.0.0.1:8000", "origin": "http://127.0.0.1:8000"}


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost:9000", "LOCALHOST", "[::1]:80"])
def test_the_loopback_by_any_of_its_names_and_through_any_tunnel(host: str) -> None:
    assert not GATE.refusal({"host": host}, GATE.token)
    assert not GATE.refusal({"host": host, "origin": f"http://{host}", "cookie": f"a=b; {KEPT}"}, None, socket=True)


@pytest.mark.parametrize(
    "host",
    ["", "evil.example", "127.0.0.1.evil.example", "localhost:80@evil.example", "127.0.0.2", "localhost:123456", "a,b"],
)
def test_foreign_hosts(host: str) -> None:
    assert GATE.refusal({"host": host}, GATE.token) == "foreign host"


@pytest.mark.parametrize(
    "origin",
    [
        "null",
        "http://evil.example",
        "https://127.0.0.1:8000",
        "http://127.0.0.1:8001",
        "http://localhost:8000",
        "",
        "http://127.0.0.1:8000,x",
    ],
)
def test_foreign_origins(origin: str) -> None:
    told = OWN | {"origin": origin, "cookie": KEPT}
    assert GATE.refusal(told, None) == "foreign origin"
    assert GATE.refusal(told, None, socket=True) == "foreign origin"


def test_a_socket_must_say_where_it_comes_from() -> None:
    told = {"host": OWN["host"], "cookie": KEPT}
    assert GATE.refusal(told, None, socket=True) == "foreign origin"
    assert not GATE.refusal(told, None)


@given(st.one_of(st.none(), st.text()))
def test_wrong_tokens(token: str | None) -> None:
    assert "token" in GATE.refusal(OWN, token)
    assert "token" in GATE.refusal(OWN | {"cookie": f"{KEPT.partition('=')[0]}={token}"}, None)


def test_each_server_has_its_own_secret_and_cookie() -> None:
    other = Gate()
    assert other.token != GATE.token
    assert "token" in GATE.refusal(OWN | {"cookie": other.cookie}, other.token)
    assert len(GATE.token) >= 43, "256 bits"


def test_a_token_that_is_no_text_is_wrong() -> None:
    assert "token" in GATE.refusal(OWN, "\ud800")
    assert "token" in GATE.refusal(OWN | {"cookie": 'a="\ud800'}, None)
