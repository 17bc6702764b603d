"""Repeats what a server undid or never answered: how often, for how long, and what is said meanwhile."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TypeVar

from storage.errors import TryAgain

USUAL_SECONDS = 10.0
"""How long a command waits for a server that answered before, such as for its restart."""
RUN_SECONDS = 300.0
"""How long a run waits: to measure again would cost more."""
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 2.0
_SAY_AFTER_S, _SAY_EVERY_S = 1.0, 30.0
_MOST_CLASHES = 10

Result = TypeVar("Result")
Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How many ``seconds`` to wait for a server, and who hears of it; ``opening`` where it is opened, too."""

    seconds: float = USUAL_SECONDS
    say: Say = lambda _: None
    opening: bool = False


_PATIENCE: ContextVar[Patience] = ContextVar("patience", default=Patience())  # noqa: B039 - it is frozen
_REPEATING: ContextVar[bool] = ContextVar("repeating", default=False)


@contextmanager
def patience(seconds: float, say: Say, *, opening: bool = False) -> Iterator[None]:
    """Wait so long for a server inside the block, in this thread alone: a heartbeat goes on as usual.

    ``opening`` is for who knows that the address is right: to open a store fails at once otherwise.
    """
    before = _PATIENCE.set(Patience(seconds=seconds, say=say, opening=opening))
    try:
        yield
    finally:
        _PATIENCE.reset(before)


def at_once() -> AbstractContextManager[None]:
    """Wait for no server inside the block: who only looks wants to hear that there is none."""
    return patience(0.0, lambda _: None)


def repeated(act: Callable[[], Result]) -> Result:
    """What ``act`` returns, begun again while it raises ``TryAgain``, which promises that nothing was written.

    A clash with another transaction is repeated some times, a server that is away for this thread's patience. Inside
    another ``repeated`` it is one try: the outer one begins the whole again.
    """
    if _REPEATING.get():
        return act()
    mark = _REPEATING.set(True)
    try:
        return until_done(act)
    finally:
        _REPEATING.reset(mark)


def opened(act: Callable[[], Result]) -> Result:
    """What ``act`` returns, which opens a store: at once, or with this thread's patience for opening."""
    return until_done(act) if _PATIENCE.get().opening else act()


def until_done(act: Callable[[], Result]) -> Result:
    """As ``repeated``, also inside another."""
    waiting = _Waiting(_PATIENCE.get())
    while True:
        try:
            result = act()
        except TryAgain as error:
            if not waiting.goes_on(error):
                raise
        else:
            waiting.over()
            return result


class _Waiting:
    """One time of repeating."""

    def __init__(self, patient: Patience) -> None:
        self._patient = patient
        self._pause = _FIRST_PAUSE_S
        self._clashes = 0
        self._began: float | None = None
        self._says_next = _SAY_AFTER_S

    def goes_on(self, error: TryAgain) -> bool:
        """Wait a little; False when it has lasted long enough."""
        now = time.monotonic()
        self._began = now if self._began is None else self._began
        waited = now - self._began
        if error.clash:
            self._clashes += 1
            if self._clashes >= _MOST_CLASHES:
                return False
        elif waited >= self._patient.seconds:
            return False
        elif waited >= self._says_next:
            left = self._patient.seconds - waited
            self._patient.say(f"waiting: {error}; giving up in {left:.0f} s")
            self._says_next = waited + _SAY_EVERY_S
        # Many clients of one server come back at once: each waits another time.
        time.sleep(self._pause * random.uniform(0.5, 1.0))  # noqa: S311
        self._pause = min(2 * self._pause, _LONGEST_PAUSE_S)
        return True

    def over(self) -> None:
        """Say that the wait is over, if it was said that there is one."""
        if self._began is not None and self._says_next > _SAY_AFTER_S:
            self._patient.say(f"the store is back after {time.monotonic() - self._began:.0f} s")
