"""A way to a PostgreSQL server that breaks just when a transaction is committed."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

_SOCKET = ".s.PGSQL.5432"
_COMMIT = b"COMMIT\x00"  # and no isolation level READ COMMITTED
What = Literal["request", "answer"]


class CuttingProxy:
    """Passes on everything to the server whose socket lies in ``server``, but for the commits it is told to cut.

    ``cut`` loses the ``request`` of the next commit, or its ``answer``: then the server has committed, and nobody
    heard of it.
    """

    def __init__(self, home: Path, server: Path) -> None:
        self._server = str(server / _SOCKET)
        self.cuts: list[What] = []
        self.made = 0
        self._ended = False
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(home / _SOCKET))
        self._listener.listen()
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def cut(self, what: What, times: int = 1) -> None:
        self.cuts += [what] * times

    def close(self) -> None:
        """End it and all that goes through it."""
        self._ended = True
        self._listener.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                thread = threading.Thread(target=self._pass_on, args=(client,))
                thread.start()
                self._threads.append(thread)

    def _pass_on(self, client: socket.socket) -> None:
        with client, socket.socket(socket.AF_UNIX) as server, contextlib.suppress(OSError):
            server.connect(self._server)
            while not self._ended:
                for origin in select.select([client, server], [], [], 0.05)[0]:
                    data = origin.recv(65536)
                    if not data:
                        return
                    if origin is client and _COMMIT in data and self.cuts:
                        self._cut(self.cuts.pop(0), data, server)
                        return
                    (server if origin is client else client).sendall(data)

    def _cut(self, what: What, data: bytes, server: socket.socket) -> None:
        self.made += 1
        if what == "answer":
            server.sendall(data)
            while server.recv(65536)[-6:-5] != b"Z":  # the server says that it is ready for more
                pass


@contextlib.contextmanager
def cutting(home: Path, server: Path) -> Iterator[CuttingProxy]:
    """A proxy whose socket lies in ``home``."""
    proxy = CuttingProxy(home, server)
    try:
        yield proxy
    finally:
        proxy.close()
