"""An arm as many processes at once: as many copies of one child as production runs side by side."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from autotuner.measurement.child.handle import Child
from autotuner.measurement.outcome import Block
from toto_core.compile_report import CompileReport
from toto_core.settings import RuntimeSettings


class Copies:
    """``count`` children of one configuration, of which every timed call of one is beside calls of the others.

    The first starts alone, and what it compiles is there for the others; it answers for all where timing plays no
    part. Where one fails, all end. ``begin`` starts a child. Methods raise ``ChildError`` as a child's do.
    """

    def __init__(self, begin: Callable[[], Child], count: int = 1) -> None:
        self._begin, self._count = begin, count
        self._first = begin()
        self._all = [self._first]

    @property
    def settings(self) -> RuntimeSettings:
        """What they run."""
        return self._first.settings

    @property
    def alive(self) -> bool:
        """Whether every process still runs."""
        return all(child.alive for child in self._all)

    @property
    def start_ms(self) -> float:
        """The first one's start."""
        return self._first.start_ms

    @property
    def was_warm(self) -> bool:
        """Whether the first one found a filled compile cache."""
        return self._first.was_warm

    @property
    def reproduced(self) -> bool:
        """Whether the first one answered a fixed request as the process that compiled did."""
        return self._first.reproduced

    @property
    def report(self) -> CompileReport:
        """What compiling did in the first one."""
        return self._first.report

    @property
    def peak_bytes(self) -> int:
        """The most memory that one of them used."""
        return max(child.peak_bytes for child in self._all)

    def wait_started(self, deadline: float) -> None:
        """Wait until all have answered, the first one before the others begin."""
        with self._all_or_none():
            self._first.wait_started(deadline)
            while len(self._all) < self._count:
                self._all.append(self._begin())
            for child in self._all[1:]:
                child.wait_started(deadline)

    def wait_ready(self, deadline: float) -> None:
        """Wait until all have reached a steady state."""
        with self._all_or_none():
            for child in self._all:
                child.wait_ready(deadline)

    def block(self, shape: int, deadline: float) -> Block:
        """Milliseconds of one block of calls of a request shape, of all copies, taken at the same time.

        A copy's last call is left out where there are others: they may have ended theirs.
        """
        beside = len(self._all) > 1
        with self._all_or_none():
            for child in self._all:
                child.begin_block(shape, one_more=beside)
            blocks = [child.end_block(deadline) for child in self._all]
        return tuple(itertools.chain.from_iterable(block[:-1] if beside else block for block in blocks))

    def forecasts(self, deadline: float, *, exact: bool = False) -> list[dict[str, Any]]:
        """The first one's forecasts; see ``Child``."""
        return self._first.forecasts(deadline, exact=exact)

    def refresh(self, deadline: float) -> None:
        """Ask again what compiling did and how much memory was used."""
        for child in self._all:
            child.refresh(deadline)

    def cpu_seconds(self) -> float:
        """CPU time of all so far."""
        return sum(child.cpu_seconds() for child in self._all)

    def place(self, cpus: frozenset[int]) -> None:
        """Run on these CPUs alone from now on."""
        for child in self._all:
            child.place(cpus)

    @contextmanager
    def _all_or_none(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self.close()  # who is left would compute beside other arms
            raise

    def close(self) -> None:
        """End all; safe to call twice."""
        for child in self._all:
            child.close()
