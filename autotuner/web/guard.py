"""Stands before every page: only for names by which this server is known; headers let a page run nothing else."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

_MOST_HEADERS = 100
_LONGEST_ADDRESS = 16_384
_PART_BYTES = 1 << 16
LOCAL = ("127.0.0.1", "localhost", "[::1]")
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",  # with none at all a browser does not say where a form stood
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
"""Of every answer. The library that draws writes styles into its elements, which is what ``unsafe-inline`` is for."""


class Guard:
    """An ASGI application before another one."""

    def __init__(self, application: Application, host: str) -> None:
        self.application = application
        self.host = host

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            return
        hosts = [value for name, value in scope["headers"] if name == b"host"]
        if len(scope["headers"]) > _MOST_HEADERS:
            await _refuse(send, 431, "too many headers")
        elif len(scope["raw_path"]) + len(scope["query_string"]) > _LONGEST_ADDRESS:
            await _refuse(send, 414, "the address is too long")
        elif len(hosts) != 1:
            await _refuse(send, 400, "one Host header is wanted")
        elif not known_host(hosts[0].decode("latin-1"), self.host):
            await _refuse(send, 421, "this server is not known by that host name")
        else:
            await self.application(scope, receive, _with_headers(send))


def known_host(header: str, bound: str) -> bool:
    """Whether a Host header names this server: a web page that had its name resolve to us does not."""
    name = header.rpartition(":")[0] if header.rpartition(":")[2].isdecimal() else header
    own = f"[{bound.lower()}]" if ":" in bound else bound.lower()
    return bound in ("0.0.0.0", "::") or name.lower() in (*LOCAL, own)  # noqa: S104 - the user's choice


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        body = message.get("body", b"")
        last = max(len(body) - 1, 0) // _PART_BYTES * _PART_BYTES
        for start in range(0, last, _PART_BYTES):  # else what a client does not read lies here in full
            part = body[start : start + _PART_BYTES]
            await send({"type": "http.response.body", "body": part, "more_body": True})
        if last:
            message = {**message, "body": body[last:]}
        if message["type"] == "http.response.start":
            named = {name for name, _ in message["headers"]}
            new = [
                (name.encode(), value.encode())
                for name, value in HEADERS.items()
                if name.encode() not in named
            ]
            message["headers"] = [*message["headers"], *new]
        await send(message)

    return sending


async def _refuse(send: Send, status: int, why: str) -> None:
    body = f'{{"error": "{why}"}}\n'.encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
