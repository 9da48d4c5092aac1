"""A small web server in a thread of its own. It holds up nobody: not the run, however slow a viewer is, nor its end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import sys
import threading
import time
from collections.abc import Mapping
from importlib import resources
from types import TracebackType
from typing import Any, Protocol

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from dmu_hw.errors import DmuError, InputError, Problem
from dmu_hw.view.board import Board, Seen
from dmu_hw.view.gate import Gate, told_browsers
from dmu_hw.view.wire import Lamp, Word, order_of

_LOOK_S = 0.03
"""From one look at the board to the next."""
_REPORT_S = 0.25
_MOST_VIEWERS = 16
_MOST_JUNK = 100
"""Whoever says more that means nothing is shown out."""
_STALLED_S = 30.0
"""A viewer who takes nothing for so long is given up."""
_LAST_WORDS_S = 0.5
"""For viewers to be told how it ended."""
log = logging.getLogger(__name__)
_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


class Site(Protocol):
    """What is viewed."""

    @property
    def board(self) -> Board: ...

    def about(self) -> dict[str, Any]:
        """What does not change, for the page to build itself."""

    def report(self) -> None:
        """Put what changes all the time on the board; called now and then while somebody looks."""

    def order(self, order: Word | Lamp) -> None:
        """Do what a page asks for, at once."""

    def image(self, wanted: Mapping[str, str], /) -> bytes:
        """A picture that is stored; InputError if there is none like that."""


class Server:
    """As a context it serves; leaving it waits for no viewer."""

    def __init__(self, site: Site, port: int = 0) -> None:
        """Port 0: any that is free."""
        self.site = site
        self.gate = Gate()
        self._socket = _bound(port)
        self.port = int(self._socket.getsockname()[1])
        self._files = _static()
        self._closing = threading.Event()
        self._reporting = False
        app = _Gated(self._app(), self.gate)
        self._server = _Uvicorn(
            uvicorn.Config(
                app,
                http="h11",
                ws="websockets-sansio",
                loop="asyncio",
                lifespan="off",
                log_config=None,
                access_log=False,  # the token stands in the first address
                server_header=False,
                ws_max_size=4096,
                ws_per_message_deflate=False,
                timeout_graceful_shutdown=1,
            )
        )
        self._thread = threading.Thread(target=self._serve, name="view", daemon=True)

    @property
    def url(self) -> str:
        """For the one who started it, and for nobody else."""
        return f"http://127.0.0.1:{self.port}/?token={self.gate.token}"

    def __enter__(self) -> Server:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        deadline_s = time.monotonic() + _LAST_WORDS_S
        while self.site.board.viewers and time.monotonic() < deadline_s:
            time.sleep(_LOOK_S)
        self._server.should_exit = self._server.force_exit = True
        self._thread.join(2.0)

    def _serve(self) -> None:
        with self._socket:
            self._server.run(sockets=[self._socket])

    # ---------------------------------------------------------------- answers

    def _app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/", self._file),
                Route("/static/{name}", self._file),
                Route("/about", self._about),
                Route("/image", self._image),
                WebSocketRoute("/socket", self._talk),
            ]
        )

    async def _file(self, request: Request) -> Response:
        """One of the few that were read at the start: no path leads anywhere else."""
        name = request.path_params.get("name", "index.html")
        if name not in self._files:
            return PlainTextResponse("there is no such file", 404)
        content, media_type = self._files[name]
        return Response(content, media_type=media_type)

    async def _about(self, _request: Request) -> Response:
        return JSONResponse(await run_in_threadpool(self.site.about))

    async def _image(self, request: Request) -> Response:
        try:
            message = await run_in_threadpool(self.site.image, dict(request.query_params))
        except DmuError as error:
            return PlainTextResponse(str(error), 404)
        return Response(message, media_type="application/octet-stream")

    # ---------------------------------------------------------------- viewers

    async def _talk(self, viewer: WebSocket) -> None:
        board = self.site.board
        if board.viewers >= _MOST_VIEWERS:
            await viewer.close(1013, "too many look already")
            return
        await viewer.accept()
        board.viewers += 1  # only this thread counts
        tasks = [asyncio.ensure_future(work(viewer)) for work in (self._show, self._listen)]
        if not self._reporting:
            self._reporting = True
            self._reporter = asyncio.ensure_future(self._report())
        try:
            ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in ended:
                if (error := task.exception()) is not None:
                    log.error("a viewer was lost", exc_info=error)
        finally:
            board.viewers -= 1
            for task in tasks:
                task.cancel()
        if viewer.application_state is not WebSocketState.DISCONNECTED:
            with contextlib.suppress(RuntimeError, WebSocketDisconnect, TimeoutError):  # it may be gone already
                await asyncio.wait_for(viewer.close(1000), _LAST_WORDS_S)

    async def _show(self, viewer: WebSocket) -> None:
        """Send what is new; behind one message that is on its way nothing waits but the newest of each kind."""
        board, seen = self.site.board, Seen()
        with contextlib.suppress(TimeoutError, WebSocketDisconnect):
            while True:
                post = board.next(seen, time.monotonic())
                if post is not None:
                    message = await run_in_threadpool(post.encoded)
                    await asyncio.wait_for(viewer.send_bytes(message), _STALLED_S)
                    seen.note(post, time.monotonic())
                elif self._closing.is_set():
                    return
                else:
                    await asyncio.sleep(_LOOK_S)

    async def _listen(self, viewer: WebSocket) -> None:
        """Orders are carried out here and now: nothing that is sent can hold up an abort."""
        junk = 0
        while junk < _MOST_JUNK:
            try:
                said = await viewer.receive()
            except RuntimeError:
                return
            if said["type"] == "websocket.disconnect":
                return
            order = order_of(said.get("text") or said.get("bytes") or b"")
            if order is None:
                junk += 1
            else:
                self.site.order(order)

    async def _report(self) -> None:
        """While somebody looks."""
        try:
            while self.site.board.viewers and not self._closing.is_set():
                await run_in_threadpool(self.site.report)
                await asyncio.sleep(_REPORT_S)
        finally:
            self._reporting = False


class _Uvicorn(uvicorn.Server):
    """Ends at once: who still takes what he was sent is cut off."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        await asyncio.sleep(0)
        await super().shutdown(sockets)


class _Gated:
    """Lets through what may pass, and adds to every answer what browsers are to heed."""

    def __init__(self, app: ASGIApp, gate: Gate) -> None:
        self.app = app
        self.gate = gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_on(message: Any) -> None:
            if message["type"] in ("http.response.start", "websocket.http.response.start"):
                told = [(name.encode(), value.encode()) for name, value in headers.items()]
                message = {**message, "headers": [*message.get("headers", []), *told]}
            await send(message)

        headers = told_browsers(_headers(HTTPConnection(scope)).get("host", ""))
        if scope["type"] == "http":
            request = Request(scope)
            token = request.query_params.get("token")
            why = self.gate.refusal(_headers(request), token)
            if not why and token is not None:
                headers["Set-Cookie"] = self.gate.cookie
            answer: ASGIApp = PlainTextResponse(f"refused: {why}", 403) if why else self.app
            await answer(scope, receive, send_on)
        elif scope["type"] == "websocket":
            viewer = WebSocket(scope, receive, send_on)
            why = self.gate.refusal(_headers(viewer), None, socket=True)
            if why:
                await viewer.send_denial_response(PlainTextResponse(f"refused: {why}", 403))
            else:
                await self.app(scope, receive, send_on)


def _headers(request: HTTPConnection) -> dict[str, str]:
    """One value each; of a Host or an Origin that is said twice, both, which no rule lets through."""
    found: dict[str, str] = {}
    for name, value in request.headers.items():
        split = "; " if name == "cookie" else ","
        found[name] = f"{found[name]}{split}{value}" if name in found else value
    return found


def _bound(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    if sys.platform == "win32":  # where others could otherwise share the port
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
    else:  # the same port again at once, for a tunnel that stays
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
        listener.listen()  # whoever comes before there is somebody to answer waits
    except (OSError, OverflowError) as error:
        listener.close()
        raise InputError([Problem("--port", f"{port} cannot be had: {error}")]) from None
    return listener


def _static() -> dict[str, tuple[bytes, str]]:
    folder = resources.files("dmu_hw.view").joinpath("static")
    found: dict[str, tuple[bytes, str]] = {}
    for file in folder.iterdir():
        kind = _TYPES.get(f".{file.name.rpartition('.')[2]}")
        if kind is not None:
            found[file.name] = file.read_bytes(), kind
    return found
