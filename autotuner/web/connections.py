"""Bounds on connections, so that whoever opens many and says little keeps nobody else out."""

from __future__ import annotations

import asyncio
import resource
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

REQUEST_SECONDS = 10.0
"""How long a request may take to arrive, headers and body, counted from the connection or the answer before."""
STALL_SECONDS = 30.0
"""How long a client may leave an answer unread."""
MOST_CONNECTIONS = 512
BACKLOG = 128
"""Connections that are accepted before the next one is looked at."""
_OTHER_FILES = 2 * BACKLOG
_FEWEST = 16


def most_connections() -> int:
    """How many connections fit beside the process's other files, which asyncio would otherwise run out of."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return MOST_CONNECTIONS
    return max(_FEWEST, min(MOST_CONNECTIONS, (soft - _OTHER_FILES) // 2))


def bounded_protocol(most: int) -> type[H11Protocol]:
    """uvicorn's protocol for one server: at most ``most`` connections, each with a time to ask and a time to read."""
    return type("BoundedProtocol", (_Bounded,), {"room": _Room(most=most)})


@dataclass(kw_only=True)
class _Room:
    """The connections of a server: how many are open, and oldest first those that can be ended when there are more.

    ``silent`` are those whose request has not come yet, ``deaf`` those that do not read their answer.
    """

    most: int
    open: int = 0
    silent: dict[H11Protocol, None] = field(default_factory=dict)
    deaf: dict[H11Protocol, None] = field(default_factory=dict)

    def begin(self, connection: H11Protocol) -> None:
        """Another one: past the bound one is ended, where all others are being answered and read, itself."""
        self.open += 1
        if self.open > self.most:
            ended = next(iter((*islice(self.silent, 1), *islice(self.deaf, 1))), connection)
            self.forget(ended)
            ended.transport.abort()
            if ended is connection:
                return
        self.silent[connection] = None

    def forget(self, connection: H11Protocol) -> None:
        self.silent.pop(connection, None)
        self.deaf.pop(connection, None)

    def end(self, connection: H11Protocol) -> None:
        self.open -= 1
        self.forget(connection)


class _Bounded(H11Protocol):
    room: _Room

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._late: asyncio.TimerHandle | None = None
        self._stalled: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.room.begin(self)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        self.room.end(self)
        for timer in (self._late, self._stalled):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._is_answering():
            self.room.silent.pop(self, None)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self._is_answering() and not self.transport.is_closing():
            self.room.silent[self] = None
            self._wait()

    def pause_writing(self) -> None:
        super().pause_writing()
        self.room.deaf[self] = None
        self._stalled = self.loop.call_later(STALL_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self.room.deaf.pop(self, None)
        if self._stalled is not None:
            self._stalled.cancel()

    def _wait(self) -> None:
        """For a request, from now on."""
        if self._late is not None:
            self._late.cancel()
        self._late = self.loop.call_later(REQUEST_SECONDS, self._end_if_late)

    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete and not self.cycle.more_body

    def _end_if_late(self) -> None:
        if not self._is_answering():
            self.transport.abort()
