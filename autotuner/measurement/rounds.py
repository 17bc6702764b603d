"""Times arms in rounds: a block of each in random order, again when someone else used the machine meanwhile."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Protocol

from autotuner.measurement.child.handle import ChildError
from autotuner.measurement.disturbance import DisturbanceWatch, read_hardware
from autotuner.measurement.outcome import ArmBlocks, Block, Conditions, Failed
from autotuner.measurement.placement import Placement

IsEnough = Callable[[int, Sequence[ArmBlocks]], bool]
"""Told the number of rounds so far and the blocks of each arm, says whether they are enough."""

REPEATS = 3
"""A round that someone else's work disturbed is taken again this often before it is kept and flagged."""
FEWEST_ROUNDS = 4
"""Rounds without which there is no interval worth the name; after them no round begins that ends too late."""


class TimedArm(Protocol):
    """An arm that gives timed blocks."""

    def block(self, shape: int, deadline: float) -> Block:
        """Milliseconds of one block of a request shape. Raises ``ChildError``."""
        ...

    def cpu_seconds(self) -> float:
        """CPU time it has used so far."""
        ...

    def place(self, cpus: frozenset[int]) -> None:
        """Run on these CPUs alone from now on."""
        ...


@dataclass(frozen=True, kw_only=True)
class TimedRounds:
    """Blocks of each arm in the order they were given; an arm that failed stands in ``failed`` by its index."""

    blocks: tuple[ArmBlocks, ...]
    failed: Mapping[int, Failed]
    conditions: Conditions


@dataclass
class Rounds:
    """Rounds of ``arms``; block ``i`` of all arms that did not fail was taken side by side.

    ``deadline`` is on ``time.monotonic``'s clock; ``width`` how many CPUs a round is kept on, 0 for all.
    """

    arms: Sequence[TimedArm]
    _: KW_ONLY
    shapes: int
    order: random.Random
    deadline: float
    device: str = "cpu"
    width: int = 0

    def __post_init__(self) -> None:
        self._blocks: list[list[list[Block]]] = [[[] for _ in range(self.shapes)] for _ in self.arms]
        self._failed: dict[int, Failed] = {}
        self._watch = DisturbanceWatch(
            lambda: sum(arm.cpu_seconds() for arm in self.arms), lambda: read_hardware(self.device)
        )
        self._placement = Placement(self.width)
        self._longest_round = 0.0

    def take(self, rounds: int, enough: IsEnough, *, least: int | None = None) -> TimedRounds:
        """Up to ``rounds`` rounds, fewer when they are ``enough`` or the time is up.

        A disturbed round is taken again while the time still holds ``least`` rounds (all of them by default).
        """
        try:
            done = self._take(rounds, enough, rounds if least is None else least)
        finally:
            self._place(self._placement.everywhere)
        return TimedRounds(
            blocks=self._frozen(), failed=dict(self._failed), conditions=self._watch.conditions(done)
        )

    def _take(self, rounds: int, enough: IsEnough, least: int) -> int:
        done = 0
        while done < rounds and len(self._failed) < len(self.arms):
            left = self.deadline - time.monotonic()
            if done >= FEWEST_ROUNDS and (left < self._longest_round or enough(done, self._frozen())):
                break
            for index, blocks in self._quiet_round(max(0, least - done)).items():
                for shape in range(self.shapes):
                    self._blocks[index][shape].append(blocks[shape])
            done += 1
        return done

    def _quiet_round(self, still_wanted: int) -> dict[int, list[Block]]:
        """A round that nobody disturbed, or after a few attempts, or for want of time, one that is flagged."""
        for attempt in range(1 + REPEATS):
            cpus = self._placement.next()
            self._place(cpus)
            self._watch.start(cpus)
            started = time.monotonic()
            blocks = self._round()
            self._longest_round = max(self._longest_round, time.monotonic() - started)
            if not self._watch.disturbed():
                return blocks
            needed = (still_wanted + 1) * self._longest_round
            if attempt == REPEATS or self._watch.never_quiet or time.monotonic() + needed > self.deadline:
                break
        self._watch.flag()
        return blocks

    def _round(self) -> dict[int, list[Block]]:
        blocks: dict[int, list[Block]] = {i: [] for i in range(len(self.arms)) if i not in self._failed}
        for shape in range(self.shapes):
            for index in self.order.sample(list(blocks), len(blocks)):
                try:
                    blocks[index].append(self.arms[index].block(shape, self.deadline))
                except ChildError as error:
                    self._failed[index] = error.failed
                    del blocks[index]
        return blocks

    def _place(self, cpus: frozenset[int] | None) -> None:
        if cpus:
            for arm in self.arms:
                arm.place(cpus)

    def _frozen(self) -> tuple[ArmBlocks, ...]:
        return tuple(tuple(tuple(shape) for shape in arm) for arm in self._blocks)
