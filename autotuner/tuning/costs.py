"""What trials, duels and spot checks took in earlier runs of a workload in one environment."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise

from autotuner.record_mapping import read_settings
from autotuner.store import Store
from storage.survey import RunRow
from toto_core.settings import RuntimeSettings

MOST_RUNS = 40
"""How many of the newest runs are asked: what a machine took a year ago says little."""
_SHORTEST = 0.001


@dataclass(frozen=True, kw_only=True)
class Costs:
    """Median seconds: of a trial of each configuration, of a duel, and of a whole run that checked a proof.

    None and empty for what no finished run of the workload in the environment shows; ``runs`` is how many were asked.
    """

    trials: Mapping[RuntimeSettings, float] = field(default_factory=dict)
    duel: float | None = None
    check: float | None = None
    runs: int = 0


def costs_of(store: Store, runs: Sequence[RunRow]) -> Costs:
    """What the newest of these runs (of one workload in one environment, oldest first) took.

    Only runs that one process began and finished: what one took that was interrupted is not known.
    """
    whole = [run for run in runs if run.status == "finished" and run.resumed_at is None][-MOST_RUNS:]
    times = store.records.trial_times([run.run_id for run in whole])
    trials: dict[str, list[float]] = defaultdict(list)
    duels, checks = [], []
    for run in whole:
        ended = times.get(run.run_id, ())
        if not ended or run.finished_at is None:
            continue
        if (
            len(ended) == 1
        ):  # a search makes more than one trial, but for one of a profile that does not search
            checks.append((run.finished_at - run.started_at).total_seconds())
        else:
            duels.append((run.finished_at - ended[-1][1]).total_seconds())
        for settings, seconds in _each(run.started_at, ended):
            trials[settings].append(seconds)
    return Costs(trials=_medians(trials), duel=_median(duels), check=_median(checks), runs=len(whole))


def _each(began: datetime, ended: Iterable[tuple[str, datetime]]) -> Iterable[tuple[str, float]]:
    """What each trial took: until it ended, since the one before it had."""
    for (_, before), (settings, at) in pairwise([("", began), *ended]):
        yield settings, max(_SHORTEST, (at - before).total_seconds())


def _medians(trials: Mapping[str, Sequence[float]]) -> dict[RuntimeSettings, float]:
    read = {text: read_settings(text) for text in trials}
    return {
        settings: statistics.median(trials[text]) for text, settings in read.items() if settings is not None
    }


def _median(seconds: Sequence[float]) -> float | None:
    return statistics.median(seconds) if seconds else None
