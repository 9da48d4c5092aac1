"""Who may look: pages of this very server, opened by somebody who knows its secret, and nobody else.

Bound to the loopback, which other users of the computer and other pages in the same browser can reach as well. Hence a
secret in the address that is printed, kept in a cookie afterwards; a Host that is the loopback's, so that no foreign
name can be made to point here; and an Origin that is this server's own.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from http.cookies import CookieError, SimpleCookie

_LOOPBACK = re.compile(r"(localhost|127\.0\.0\.1|\[::1\])(:\d{1,5})?", re.IGNORECASE)
_HEADERS = {
    # some browsers do not count sockets among what 'self' is
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self' ws://{host}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
"""Of every answer: nothing is loaded from anywhere else, nothing is kept, and nobody frames the page."""


def told_browsers(host: str) -> dict[str, str]:
    """The headers of an answer to who came by that name."""
    known = host if _LOOPBACK.fullmatch(host) else "127.0.0.1"
    return {name: value.replace("{host}", known) for name, value in _HEADERS.items()}


class Gate:
    """One secret for the life of a server."""

    def __init__(self) -> None:
        self.token = secrets.token_urlsafe(32)
        self._cookie = f"dmu-{secrets.token_hex(4)}"
        """Cookies are shared by all ports of a host: each server has its own."""

    @property
    def cookie(self) -> str:
        """For the browser that knew the secret."""
        return f"{self._cookie}={self.token}; HttpOnly; SameSite=Strict; Path=/"

    def refusal(self, headers: Mapping[str, str], token: str | None, *, socket: bool = False) -> str:
        """Why a request is refused; empty if it is not. `headers` by names in small letters; a socket that does not say
        where it comes from is none of a browser's."""
        host, origin = headers.get("host", ""), headers.get("origin")
        if not _LOOPBACK.fullmatch(host):
            return "foreign host"
        if (origin is None and socket) or (origin is not None and origin.lower() != f"http://{host}".lower()):
            return "foreign origin"
        if not (self._knows(token) or self._knows(self._kept(headers.get("cookie", "")))):
            return "wrong or no token: open the address that dmu printed"
        return ""

    def _knows(self, token: str | None) -> bool:
        return token is not None and secrets.compare_digest(token.encode(errors="replace"), self.token.encode())

    def _kept(self, cookies: str) -> str | None:
        try:
            found = SimpleCookie(cookies).get(self._cookie)
        except CookieError:
            return None
        return None if found is None else found.value
