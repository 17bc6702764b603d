"""Warm-up to a steady state and timed blocks, over any call that can be made again and again."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence

WINDOW = 5
"""Calls in a warm-up window and in a timed block."""
STEADY = 0.05
"""Largest relative difference between the medians of two successive windows in a steady state."""

Call = Callable[[int], None]
"""Makes one request of a shape, given by its index, and waits for the answer."""


def timed_ms(call: Call, shape: int) -> float:
    """Wall time of one call in milliseconds."""
    started = time.perf_counter()
    call(shape)
    return (time.perf_counter() - started) * 1000.0


def warm_up(
    call: Call,
    shapes: int,
    recompiles: Callable[[], int],
    *,
    seconds: float,
    clock: Callable[[], float] = time.monotonic,
) -> bool:
    """Call every shape in turn until it is steady; False when ``seconds`` pass before that.

    Steady: no recompile in the last ``WINDOW`` rounds, and for every shape the medians of the last two
    windows differ by less than ``STEADY``.
    """
    deadline = clock() + seconds
    history: list[list[float]] = [[] for _ in range(shapes)]
    compiled: list[int] = []
    while clock() < deadline:
        for shape in range(shapes):
            history[shape].append(timed_ms(call, shape))
        compiled.append(recompiles())
        no_recompile = len(compiled) > WINDOW and compiled[-1] == compiled[-1 - WINDOW]
        if no_recompile and all(is_steady(calls) for calls in history):
            return True
    return False


def is_steady(calls_ms: Sequence[float]) -> bool:
    """Whether the medians of the last two windows of calls differ by less than ``STEADY``."""
    if len(calls_ms) < 2 * WINDOW:
        return False
    before = statistics.median(calls_ms[-2 * WINDOW : -WINDOW])
    last = statistics.median(calls_ms[-WINDOW:])
    return abs(last - before) < STEADY * before
