"""What the pages are about: the store, the daemon where there is one, and what they cost, asked for once."""

from __future__ import annotations

import secrets
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Generic, TypeVar

from autotuner.environment import current_environment
from autotuner.report.overview import Row, Seen, overview
from autotuner.store import Store
from storage.survey import Mark

if TYPE_CHECKING:
    from autotuner.daemon.loop import Daemon

FRESH_SECONDS = 0.5
"""How old an answer about the store's state may be: as many readers as there are share it."""
STATES = 60
"""Earlier states that are remembered, so that a page which opened a moment ago misses nothing."""
Value = TypeVar("Value")


@dataclass
class _Shared(Generic[Value]):
    """One value for as long as its key stays the same; who asks meanwhile waits for the first."""

    _lock: threading.Lock = field(default_factory=threading.Lock)
    _known: tuple[object, Value] | None = None

    def get(self, key: Callable[[], object], read: Callable[[], Value]) -> Value:
        with self._lock:
            wanted = key()
            if self._known is None or self._known[0] != wanted:
                self._known = wanted, read()
            return self._known[1]


@dataclass(frozen=True, kw_only=True)
class State:
    """All rows at one moment, under a name that no other moment has."""

    name: str
    rows: tuple[Row, ...]


@dataclass(kw_only=True)
class Site:
    """Everything that pages ask for. ``host`` is the address that is served, ``token`` allows actions.

    Methods raise ``StorageError`` and ``AutotuneError``, one line each.
    """

    location: str
    host: str = "127.0.0.1"
    daemon: Daemon | None = None
    token: str | None = None
    _mark: _Shared[Mark] = field(default_factory=_Shared)
    _state: _Shared[State] = field(default_factory=_Shared)
    _states: deque[State] = field(default_factory=lambda: deque(maxlen=STATES))
    _seen: Seen = field(default_factory=dict)

    def open(self) -> Store:
        """The store, to be closed by whoever asks."""
        return Store(self.location, create=False, publish=False)

    def mark(self) -> Mark:
        """What differs once anything changed."""
        return self._mark.get(lambda: int(time.monotonic() / FRESH_SECONDS), self._read_mark)

    def rows(self) -> tuple[Row, ...]:
        """Every symbol in one row; read again once something changed, and every minute, because ages grow."""
        return self.state().rows

    def state(self) -> State:
        """The same with the name by which an open page says later what it shows."""
        return self._state.get(lambda: (self.mark(), int(time.time() / 60)), self._read_state)

    def state_of(self, name: str) -> State | None:
        """An earlier state, None where it is too old or of another server."""
        return next((state for state in self._states if state.name == name), None)

    def _read_mark(self) -> Mark:
        with self.open() as store:
            return store.records.mark()

    def _read_state(self) -> State:
        with self.open() as store:
            rows = overview(store, environment=current_environment(), now=datetime.now(UTC), seen=self._seen)
        state = State(name=secrets.token_hex(8), rows=rows)
        self._states.append(state)
        return state
