"""A thousand connections that say little or read nothing, at 1,024 open files: is ``/healthz`` still answered?"""

from __future__ import annotations

import contextlib
import http.client
import re
import resource
import select
import socket
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from autotuner.store import Store
from autotuner.web.connections import REQUEST_SECONDS
from tests.faults.campaign.table import Row, Size
from tests.support.command import Cli

CONNECTIONS = 1_000
FILES = 1_024
WITHIN_SECONDS = 1.0
_HOST = b"Host: 127.0.0.1\r\n"
_FIRST = {
    "say nothing": b"",
    "send a byte a second": b"GET /healthz HTTP/1.1\r\n" + _HOST + b"X: ",
    "never end what they send": b"POST /login HTTP/1.1\r\n" + _HOST + b"Content-Length: 9000\r\n\r\n",
    "read nothing of the largest answer": b"GET /assets/plotly.js HTTP/1.1\r\n" + _HOST + b"\r\n",
    "follow what happens": b"GET /events HTTP/1.1\r\n" + _HOST + b"\r\n",
}


def rows(size: Size) -> Iterator[Row]:
    """A row for each way of being slow."""
    seconds = 15 if size == "short" else 120
    for name, first in _FIRST.items():
        yield _row(f"{CONNECTIONS:,} connections that {name}", first, seconds)


def _row(fault: str, first: bytes, seconds: int) -> Row:
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, _dashboard(Path(folder)) as port:
        opened = _connections(port, first)
        waits, broken = [], ""
        for _ in range(seconds):
            trickle(opened)
            try:
                waits.append(_health(port))
            except OSError as error:
                broken = broken or f"/healthz: {error}"
            time.sleep(max(0.0, 1.0 - (waits[-1] if waits else 0.0)))
        hung_up = sum(map(is_closed, opened))
        for each in opened:
            each.close()
        held = sum(wait <= WITHIN_SECONDS for wait in waits)
    waits = waits or [0.0]
    measured = (
        f"/healthz p50 {statistics.median(waits) * 1e3:.0f} ms, longest {max(waits) * 1e3:.0f} ms; "
        f"{hung_up:,} hung up on after {seconds} s (bound {REQUEST_SECONDS:.0f} s)"
    )
    return Row(
        fault=fault,
        times=seconds,
        held=held,
        broken=broken,
        measured=measured,
        seconds=time.monotonic() - begun,
    )


@contextlib.contextmanager
def _dashboard(folder: Path) -> Iterator[int]:
    with Store(str(folder / "autotune.db")):
        pass
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (FILES, before[1]))  # what a child inherits
    try:
        command = Cli(folder).start(
            "dashboard", "--port", "0", "--allow-actions"
        )  # its log is read at the end
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(4 * FILES, before[1]), before[1]))
    with command:
        assert command.stderr is not None
        found = re.search(r":(\d+)/", command.stderr.readline())
        assert found is not None
        try:
            yield int(found[1])
        finally:
            command.terminate()


def _connections(port: int, first: bytes) -> list[socket.socket]:
    opened = []
    for _ in range(CONNECTIONS):
        each = socket.socket()
        each.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        each.settimeout(5)
        with contextlib.suppress(OSError):
            each.connect(("127.0.0.1", port))
            each.sendall(first)
        opened.append(each)
    return opened


def trickle(opened: list[socket.socket]) -> None:
    """Send another byte on each, as far as that is still there."""
    for each in opened:
        with contextlib.suppress(OSError):
            each.send(b"y")


def is_closed(connection: socket.socket) -> bool:
    """Whether the other end has hung up."""
    asked = select.poll()
    asked.register(connection, select.POLLRDHUP)
    return bool(asked.poll(0))


def _health(port: int) -> float:
    begun = time.monotonic()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    with contextlib.closing(connection):
        connection.request("GET", "/healthz")
        if connection.getresponse().status != 200:
            raise OSError("not healthy")
    return time.monotonic() - begun
