"""Several models side by side on one symbol's prices: their forecasts of the same windows, and their times."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from autotuner.errors import AutotuneError
from autotuner.measurement.accuracy import ShapeForecasts, read_forecasts
from autotuner.measurement.child.copies import Copies
from autotuner.measurement.child.handle import ChildError
from autotuner.measurement.outcome import ArmBlocks, Failed
from autotuner.measurement.rounds import FEWEST_ROUNDS, Rounds
from autotuner.measurement.starter import Starter
from autotuner.workload import Workload
from toto_core.held_folders import held_folder
from toto_core.settings import RuntimeSettings

BLOCKS = 24
"""Timed blocks of each model in a launch."""
_WARM_UP_SECONDS = 30.0


@dataclass(frozen=True, kw_only=True)
class Entrant:
    """A model (as its workload names it) in one configuration; ``caches`` is where its trials compiled."""

    workload: Workload
    settings: RuntimeSettings
    caches: Path


@dataclass(frozen=True, kw_only=True)
class ModelRunner:
    """Runs models on one device over prices ``close`` (time,), whose held-out part begins at ``last_fifth_start``."""

    close: npt.NDArray[np.float64]
    last_fifth_start: int
    device: str
    memory_bytes: int
    say: Callable[[str], None]
    seed: int = 0

    def forecasts(
        self, entrants: Sequence[Entrant], *, windows: int, seconds: float
    ) -> list[Sequence[ShapeForecasts]]:
        """What each forecasts of the same ``windows``, at most; one entry a request shape.

        Raises ``AutotuneError`` with the model's name when it cannot be run.
        """
        deadline = time.monotonic() + seconds
        found = []
        with held_folder() as folder:
            for entrant in entrants:
                self.say(f"forecasting {windows} windows with {entrant.workload.model}")
                with ExitStack() as children:
                    starter = self._starter(entrant, folder, windows)
                    found.append(self._forecasts(entrant, starter, children, deadline))
        return found

    def launches(
        self, entrants: Sequence[Entrant], *, launches: int, seconds: float
    ) -> list[tuple[ArmBlocks, ...]]:
        """Blocks of every entrant (entrant, launch), taken in turns by fresh processes of all in each launch.

        Fewer launches where time runs out. Raises ``AutotuneError`` with the model's name when one cannot be run.
        """
        end, longest = time.monotonic() + seconds, 0.0
        order = random.Random(self.seed)  # noqa: S311 - the order of arms, not a secret
        taken: list[list[ArmBlocks]] = [[] for _ in entrants]
        with held_folder() as folder:
            starters = [self._starter(entrant, folder, 1) for entrant in entrants]
            for number in range(1, launches + 1):
                began = time.monotonic()
                if number > 1 and end - began < longest:
                    break
                self.say(f"models side by side: launch {number} of {launches}")
                for blocks, own in zip(taken, self._launch(entrants, starters, order, end), strict=True):
                    blocks.append(own)
                longest = max(longest, time.monotonic() - began)
        return [tuple(blocks) for blocks in taken]

    def _forecasts(
        self, entrant: Entrant, starter: Starter, children: ExitStack, deadline: float
    ) -> Sequence[ShapeForecasts]:
        try:
            arm = starter.start(entrant.settings, children, deadline, empty=False)
            arm.wait_ready(deadline)
            found = read_forecasts(arm.forecasts(deadline))
        except ChildError as error:
            raise AutotuneError(f"{entrant.workload.model} cannot be run: {error}") from None
        if isinstance(found, Failed):
            raise AutotuneError(f"{entrant.workload.model}: its forecasts cannot be used: {found.detail}")
        return found

    def _launch(
        self, entrants: Sequence[Entrant], starters: Sequence[Starter], order: random.Random, end: float
    ) -> list[ArmBlocks]:
        with ExitStack() as children:
            arms = [
                self._started(entrant, starter, children, end)
                for entrant, starter in zip(entrants, starters, strict=True)
            ]
            shapes = len(entrants[0].workload.shapes)
            rounds = Rounds(arms, shapes=shapes, order=order, deadline=end, device=self.device)
            timed = rounds.take(BLOCKS, lambda *_: False, least=FEWEST_ROUNDS)
        for index, failed in timed.failed.items():
            raise AutotuneError(f"{entrants[index].workload.model} cannot be timed: {failed}")
        return list(timed.blocks)

    def _started(self, entrant: Entrant, starter: Starter, children: ExitStack, end: float) -> Copies:
        try:
            arm = starter.start(entrant.settings, children, end, empty=False)
            arm.wait_ready(end)
        except ChildError as error:
            raise AutotuneError(f"{entrant.workload.model} cannot be run: {error}") from None
        return arm

    def _starter(self, entrant: Entrant, folder: Path, windows: int) -> Starter:
        series = folder / "close.npy"
        if not series.exists():
            np.save(series, self.close)
        return Starter(
            workload=entrant.workload,
            device=self.device,
            caches=entrant.caches,
            series_file=series,
            last_fifth_start=self.last_fifth_start,
            memory_bytes=self.memory_bytes,
            warm_up_seconds=_WARM_UP_SECONDS,
            windows=windows,
        )
