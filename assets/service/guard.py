"""What every request must pass before it is answered: who asks, how much comes, how fast; and headers of every answer. Plain ASGI."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

HEADERS = {
    b"content-security-policy": b"default-src 'none'; img-src 'self' blob: data:; style-src 'self'; script-src 'self'; connect-src 'self';"
    b" base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
}
NAMES = ("127.0.0.1", "localhost", "[::1]")


class Refused(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class Guard:
    """Reads the whole body before the app sees it: at most `most` bytes, and the last of them within `patience` seconds."""

    def __init__(self, app: App, most: int, patience: float) -> None:
        self.app = app
        self.most = most
        self.patience = patience

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return

        async def with_headers(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *HEADERS.items()]
            await send(message)

        try:
            self._check_names(scope)
            body = await self._body(scope, receive)
        except Refused as refused:
            await _answer(with_headers, refused)
            return
        sent = False

        async def replay() -> MutableMapping[str, Any]:
            nonlocal sent
            if sent:
                return await receive()
            sent = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self.app(scope, replay, with_headers)

    def _check_names(self, scope: Scope) -> None:
        """Another site's page, or a name that was bound to this machine, must not ask on the reader's behalf."""
        headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
        host = headers.get(b"host", "")
        if host.rpartition(":")[0] not in NAMES and host not in NAMES:
            raise Refused(403, "this service answers on 127.0.0.1 and localhost alone")
        origin = headers.get(b"origin")
        if origin is not None and origin != f"http://{host}":
            raise Refused(403, "this service answers its own page alone")

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        told = dict(scope["headers"]).get(b"content-length", b"0")
        too_much = Refused(413, f"the request is larger than {self.most:,} bytes. Send a smaller picture.")
        if not told.isdigit() or int(told) > self.most:
            raise too_much
        parts, size = [], 0
        clock = asyncio.get_running_loop().time
        end = clock() + self.patience  # of all pieces together: who sends a byte now and then would stay for ever
        while True:
            try:
                message = await asyncio.wait_for(receive(), max(0.0, end - clock()))
            except TimeoutError:
                raise Refused(408, f"the request was not whole after {self.patience:g} seconds") from None
            if message["type"] == "http.disconnect":
                raise Refused(400, "the client went away")
            part = message.get("body", b"")
            size += len(part)
            if size > self.most:
                raise too_much
            parts.append(part)
            if not message.get("more_body"):
                return b"".join(parts)


async def _answer(send: Send, refused: Refused) -> None:
    body = json.dumps({"error": refused.message}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
