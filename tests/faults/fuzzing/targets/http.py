"""Requests as bytes on a real socket of the real server: an answer that is no failure of its own, and it goes on."""

from __future__ import annotations

import atexit
import functools
import logging
import random
import re
import socket
from contextlib import ExitStack, suppress
from urllib.parse import quote

from autotuner.web.site import Site
from tests.faults.fuzzing import mutation, stores
from tests.faults.fuzzing.verdicts import check
from tests.support.serving import served

SECONDS = 3.0
_WAIT_SECONDS = 5.0
_PATIENCE_SECONDS = 0.3
_MOST_READ = 1 << 20
_PATHS = (
    "/",
    "/healthz",
    "/readyz",
    "/metrics",
    "/daemon",
    "/symbols/AMD",
    "/symbols/BTC%2FUSDT",
    "/api/v1/settings/AMD",
    "/api/v1/settings/%5EGSPC",
    "/download/AMD",
    "/events?since=0123456789abcdef",
    "/assets/style.css",
    "/assets/..%2f..%2fpasswd",
    "/login",
)
_TOKEN = "the-token-of-a-test"


def seeds() -> tuple[bytes, ...]:
    host = "Host: 127.0.0.1\r\n"
    reads = [f"GET {path} HTTP/1.1\r\n{host}Connection: close\r\n\r\n" for path in _PATHS]
    form = "token=the-token&csrf=x&symbol=AMD&mode=default&reason=%F0%9F%92%A5"
    head = f"{host}Origin: http://127.0.0.1\r\nCookie: autotune=abc\r\nConnection: close\r\n"
    length = f"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {len(form)}\r\n"
    posts = [f"POST {path} HTTP/1.1\r\n{head}{length}\r\n{form}" for path in ("/login", "/actions/pin")]
    chunked = (
        f"POST /actions/rollback HTTP/1.1\r\n{head}Transfer-Encoding: chunked\r\n\r\n5\r\nsymbo\r\n0\r\n\r\n"
    )
    posts += _of_one_logged_in()
    return tuple(each.encode() for each in (*reads, *posts, chunked, f"HEAD /metrics HTTP/1.0\r\n{host}\r\n"))


def _of_one_logged_in() -> list[str]:
    """Actions that are done, with what only this process knows left to be filled in."""
    settings = quote('{"compile_mode":"default","precision":"bf16"}')
    forms = {
        "pin": f"symbol=AMD&settings={settings}&reason=a%20week",
        "unpin": "symbol=MSFT&reason=it+is+over",
        "rollback": "symbol=AMD&reason=it+is+slow",
    }
    heads = (
        "Host: 127.0.0.1\r\nOrigin: http://127.0.0.1\r\nCookie: autotune=@SESSION@\r\nConnection: close\r\n"
    )
    return [
        f"POST /actions/{action} HTTP/1.1\r\n{heads}Content-Length: @LENGTH@\r\n\r\ncsrf=@CSRF@&{form}"
        for action, form in forms.items()
    ]


def mutated(data: bytes, chance: random.Random) -> bytes:
    if chance.random() < 0.4:
        return mutation.lines(data, chance)
    line, gap, rest = data.partition(b"\r\n")
    if chance.random() < 0.5:
        return _encoded_text(line, chance) + gap + rest
    return line + gap + mutation.lines(rest, chance)


def one(data: bytes) -> None:
    server = _server()
    answer = server.ask(server.filled_in(data))
    status = answer.split(b" ", 2)[1:2]
    check(status != [b"500"], f"it answered {answer[:200]!a}")
    alive = server.ask(
        b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n", _WAIT_SECONDS
    )
    check(alive.startswith(b"HTTP/1.1 200"), f"/healthz answered {alive[:200]!a}")
    failed, server.failed[:] = list(server.failed), []
    check(not failed, f"the server logged {failed[:1]!a}")


def _encoded_text(line: bytes, chance: random.Random) -> bytes:
    """A request line with a strange text in its address, percent-encoded as a client would."""
    words = line.split(b" ")
    text = mutation.strange_text(chance)[:3000]
    encoded = b"".join(b"%%%02X" % byte for byte in text) if chance.random() < 0.7 else text
    if len(words) < 2:
        return line + encoded
    path = words[1]
    place = chance.randrange(len(path) + 1)
    words[1] = chance.choice(
        (path[:place] + encoded + path[place:], path + b"/" + encoded, path + b"?x=" + encoded)
    )
    return b" ".join(words)


class _Server(logging.Handler):
    """The server of this process, what it logs as errors, and one request to it."""

    def __init__(self, port: int) -> None:
        super().__init__(logging.ERROR)
        self.failed: list[str] = []
        self._port = port
        self._session = self._word = b""

    def emit(self, record: logging.LogRecord) -> None:
        self.failed.append(
            f"{record.getMessage()} {record.exc_info[1]!r}" if record.exc_info else record.getMessage()
        )

    def log_in(self) -> None:
        """Get what forms of a session must hold."""
        heads = "Host: 127.0.0.1\r\nOrigin: http://127.0.0.1\r\nConnection: close\r\n"
        form = f"token={_TOKEN}"
        login = f"POST /login HTTP/1.1\r\n{heads}Content-Length: {len(form)}\r\n\r\n{form}"
        found = re.search(rb"autotune=([^;]+);", self.ask(login.encode(), _WAIT_SECONDS))
        self._session = found[1] if found else b"none"
        cookie = b"GET /symbols/AMD HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nCookie: autotune="
        page = self.ask(cookie + self._session + b"\r\n\r\n", _WAIT_SECONDS)
        word = re.search(rb'name="csrf" value="([^"]+)"', page)
        self._word = word[1] if word else b"none"

    def filled_in(self, data: bytes) -> bytes:
        """A request with the session of this process, and the length that its form then has."""
        if b"@" not in data:
            return data
        data = data.replace(b"@SESSION@", self._session).replace(b"@CSRF@", self._word)
        return data.replace(b"@LENGTH@", str(len(data.partition(b"\r\n\r\n")[2])).encode())

    def ask(self, data: bytes, patience: float = _PATIENCE_SECONDS) -> bytes:
        """What comes back, as far as it is read."""
        with socket.create_connection(("127.0.0.1", self._port), timeout=_WAIT_SECONDS) as connection:
            answer = b""
            with suppress(OSError):  # it may hang up on what is no HTTP
                connection.sendall(data)
                connection.settimeout(patience)
                while len(answer) < _MOST_READ and b"text/event-stream" not in answer:
                    try:
                        part = connection.recv(_MOST_READ)
                    except TimeoutError:  # it waits for the rest of a request, or for the next
                        if connection.gettimeout() == _WAIT_SECONDS:
                            break
                        connection.shutdown(socket.SHUT_WR)
                        connection.settimeout(_WAIT_SECONDS)
                        continue
                    if not part:
                        break
                    answer += part
            return answer


@functools.cache
def _server() -> _Server:
    stack = ExitStack()
    atexit.register(stack.close)
    site = Site(location=str(stores.fresh("http")), token=_TOKEN)
    server = _Server(stack.enter_context(served(site)))
    for name in ("uvicorn.error", "asyncio"):
        logging.getLogger(name).addHandler(server)
    server.log_in()
    return server
