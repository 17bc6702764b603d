"""A study in a process of its own, stuck in its ``n``-th trial until it is killed.

Started as ``python -m tests.support.study_process FOLDER N``.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

from autotuner.measurement.outcome import Measured, Outcome, measured_from_json, measured_to_json
from autotuner.measurement.replay import ReplayRunner, TimingNoise
from autotuner.search.profiles import PROFILES, Limits
from autotuner.search.search import Search, SearchPlan, SearchResult, TrialEvent
from tests.support.study_tables import SPACE, WORKLOAD, replay_table
from toto_core.settings import RuntimeSettings

NAME = "AMD · workload · environment"


class StuckRunner(ReplayRunner):
    def __init__(self, folder: Path, stuck_at: int) -> None:
        super().__init__(replay_table(), TimingNoise.none())
        self._folder = folder
        self._left = stuck_at

    def measure(
        self, settings: RuntimeSettings, *, seconds: float, beat: float | None = None, again: bool = False
    ) -> Outcome:
        self._left -= 1
        if self._left == 0:
            (self._folder / "stuck").write_text(settings.to_json(), encoding="utf-8")
            time.sleep(600)
        return super().measure(settings, seconds=seconds)


def stored(folder: Path) -> dict[RuntimeSettings, Outcome]:
    path = folder / "outcomes"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    pairs = (json.loads(line) for line in lines)
    return {RuntimeSettings.from_json(settings): measured_from_json(outcome) for settings, outcome in pairs}


def run(folder: Path, runner: ReplayRunner) -> SearchResult:
    def store(event: TrialEvent) -> None:
        assert isinstance(event.outcome, Measured)
        with (folder / "outcomes").open("a", encoding="utf-8") as file:
            file.write(json.dumps((event.settings.to_json(), measured_to_json(event.outcome))) + "\n")
            file.flush()
            os.fsync(file.fileno())

    return Search(
        runner=runner,
        space=SPACE,
        workload=WORKLOAD,
        profile=PROFILES["production"],
        limits=Limits(),
        known=stored(folder),
        first=[SPACE.reference],
        plan=SearchPlan(trials=4, seconds=1e6, seed=3),
        storage_url=f"sqlite:///{folder / 'studies.db'}",
        study_name=NAME,
        on_outcome=store,
        clock=runner.clock,
        seconds_for_trial=lambda _, remaining: remaining,
    ).run()


if __name__ == "__main__":
    where = Path(sys.argv[1])
    run(where, StuckRunner(where, int(sys.argv[2])))
