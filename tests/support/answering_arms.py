"""Arms that answer at once, for the tests of rounds and of placement."""

from __future__ import annotations

import time
from collections.abc import Sequence

from autotuner.measurement.child.handle import ChildError
from autotuner.measurement.outcome import ArmBlocks, Block, Failed


class Answering:
    """An arm that answers at once and notes the order of all calls; it may fail at its ``fails_at``-th block."""

    def __init__(self, name: str, calls: list[str], *, fails_at: int = -1, takes: float = 0.0) -> None:
        self.name, self.calls, self.fails_at, self.takes = name, calls, fails_at, takes
        self.given = 0

    def block(self, shape: int, deadline: float) -> Block:
        time.sleep(self.takes)
        if self.given == self.fails_at:
            raise ChildError(Failed(kind="crashed", detail=self.name))
        self.given += 1
        self.calls.append(f"{self.name}{shape}")
        return (float(self.given),)

    def cpu_seconds(self) -> float:
        return 0.0

    def place(self, cpus: frozenset[int]) -> None:
        self.calls.append(f"{self.name}@{sorted(cpus)}")


def never(_: int, __: Sequence[ArmBlocks]) -> bool:
    return False
