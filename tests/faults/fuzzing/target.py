"""What a target of fuzzing is, which there are, and one input put through one of them."""

from __future__ import annotations

import importlib
import random
import resource
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol, cast

NAMES = (
    "addresses",
    "bundles",
    "configuration",
    "containers",
    "crontabs",
    "http",
    "manifests",
    "models",
    "notes",
    "prices",
    "releases",
    "rows",
    "settings",
    "snapshots",
    "symbols",
    "variables",
    "watchlists",
    "workloads",
)
"""Modules of ``targets``, in alphabetical order."""
HANGS_AFTER_S, STANDS_AFTER_S = 20, 300
"""Seconds after which an input is ended: of processor time, and by the clock, which other processes share."""
MOST_BYTES = 256 << 20
"""By how much one input may raise the most memory that the process ever held."""


class Violation(AssertionError):  # noqa: N818 - reads as the message it stands for
    """An input was not answered as it must be; any other exception that a target lets out is one too."""


class Target(Protocol):
    """A module of ``targets``."""

    SECONDS: float
    """Processor time that any input may take."""

    def seeds(self) -> tuple[bytes, ...]:
        """Inputs as they really occur."""

    def mutated(self, data: bytes, chance: random.Random) -> bytes:
        """``data`` with something changed; other bytes than a seed's are changed, too."""

    def one(self, data: bytes) -> None:
        """Put the bytes through the real thing. Raises for whatever must not happen, and only for that."""


def target(name: str) -> Target:
    """The target of that name."""
    return cast("Target", importlib.import_module(f"tests.faults.fuzzing.targets.{name}"))


def put_through(chosen: Target, data: bytes, *, bounded: bool = True) -> None:
    """One input within its bounds. ``bounded`` false is for the first ones, which import what they need."""
    held, began = _most_bytes(), time.process_time()
    with _ended_in_time():
        chosen.one(data)
    if not bounded:
        return
    took, more = time.process_time() - began, _most_bytes() - held
    if took > chosen.SECONDS:
        raise Violation(f"it took {took:.2f} s of processor time, more than {chosen.SECONDS} s")
    if more > MOST_BYTES:
        raise Violation(f"it took {more >> 20} MiB of memory")


class _Hangs(BaseException):
    """Past everything that catches exceptions."""


@contextmanager
def _ended_in_time() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(*_: Any) -> None:
        raise _Hangs

    before = {each: signal.signal(each, end) for each in (signal.SIGPROF, signal.SIGALRM)}
    signal.setitimer(signal.ITIMER_PROF, HANGS_AFTER_S)
    signal.setitimer(signal.ITIMER_REAL, STANDS_AFTER_S)
    try:
        yield
    except _Hangs:
        raise Violation(f"it was not answered within {HANGS_AFTER_S} s") from None
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        for each, handler in before.items():
            signal.signal(each, handler)


def _most_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
