"""Block times as a busy machine gives them, from a latency that is known."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from autotuner.measurement.outcome import Block

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Noise:
    call_sd: float = 0.14
    bimodal: bool = False
    launch_sd: float = 0.02
    block_sd: float = 0.05
    block_correlation: float = 0.5
    disturbed: float = 0.05

    def launch(
        self, rng: np.random.Generator, true_ms: tuple[float, ...], *, blocks: int = 12, calls: int = 4
    ) -> list[tuple[Block, ...]]:
        """Blocks of each arm of one launch: what the machine does meanwhile is common, the rest their own."""
        machine = self._drift(rng, blocks)
        return [self._arm(rng, ms, machine, blocks, calls) for ms in true_ms]

    def _arm(
        self, rng: np.random.Generator, true_ms: float, machine: Floats, blocks: int, calls: int
    ) -> tuple[Block, ...]:
        own = machine + self._drift(rng, blocks) + self.launch_sd * rng.standard_normal()
        logs = own[:, np.newaxis] + self._calls(rng, blocks, calls)
        slowed = np.where(rng.random(blocks) < self.disturbed, rng.uniform(1.5, 3.0, blocks), 1.0)
        times = true_ms * np.exp(logs) * slowed[:, np.newaxis]
        return tuple(tuple(block) for block in times.tolist())

    def _calls(self, rng: np.random.Generator, blocks: int, calls: int) -> Floats:
        if self.bimodal:
            slow = rng.random((blocks, calls)) < 0.35
            return np.where(slow, 0.25, 0.0) + 0.04 * rng.standard_normal((blocks, calls))
        return self.call_sd * rng.standard_normal((blocks, calls))

    def _drift(self, rng: np.random.Generator, blocks: int) -> Floats:
        return self.block_sd * _correlated(self.block_correlation, blocks) @ rng.standard_normal(blocks)


@functools.cache
def _correlated(correlation: float, count: int) -> Floats:
    # First-order autoregression of unit variance has correlation ** |i - j| between i and j.
    steps = np.abs(np.subtract.outer(np.arange(count), np.arange(count)))
    return np.asarray(np.linalg.cholesky(correlation**steps), dtype=np.float64)
