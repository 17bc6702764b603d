"""A whole run, or a whole study and its duel, answered from recorded measurements instead of measuring."""

from __future__ import annotations

import dataclasses
import itertools
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from autotuner.measurement.recorded import ReplayTable, seed_table
from autotuner.measurement.replay import ReplayRunner, TimingNoise
from autotuner.promotion.decision import Decision, decide
from autotuner.search.profiles import Limits, Profile, seed_profile
from autotuner.search.search import Search, SearchPlan
from autotuner.search.space import SearchSpace, likely_winners
from autotuner.tuning.budget import duel_seconds, trial_seconds
from autotuner.tuning.finalists import duel_of_finalists
from autotuner.tuning.measuring import MeasuringPlan
from autotuner.tuning.request import TuneRequest
from autotuner.workload import Workload
from toto_core.settings import RuntimeSettings


@dataclass(frozen=True, kw_only=True)
class Replayed:
    """What one replayed run decided.

    ``search_seconds`` and ``run_seconds`` are simulated; ``tried`` names what was measured, each with the
    seconds it was known after.
    """

    decision: Decision
    search_seconds: float
    run_seconds: float
    tried: tuple[tuple[RuntimeSettings, float], ...]


def replayed_decision(
    table: ReplayTable,
    noise: TimingNoise,
    *,
    space: SearchSpace,
    workload: Workload,
    profile: Profile,
    seconds: float,
    seed: int,
    champion: RuntimeSettings | None = None,
    cpus: int = 1,
) -> Replayed:
    """Search, duel and decide as ``tune`` does, in simulated time and without a store, building on ``cpus``."""
    runner = ReplayRunner(table, noise, cpus=cpus)
    tried: list[tuple[RuntimeSettings, float]] = []
    first = [space.reference, space.reference.replace(precision="bf16"), *([champion] if champion else [])]
    study = Search(
        runner=runner,
        space=space,
        workload=workload,
        profile=profile,
        limits=Limits(),
        known={},
        first=[settings for settings in (*first, *likely_winners(space)) if settings in space],
        plan=SearchPlan(trials=len(space.keys), seconds=seconds, seed=seed),
        storage_url=None,
        study_name="replay",
        on_outcome=lambda event: tried.append((event.settings, runner.clock())),
        clock=runner.clock,
        seconds_for_trial=lambda _, left: trial_seconds(left),
        reserve=partial(duel_seconds, seconds),
    ).run()
    searched = runner.clock()
    result = duel_of_finalists(
        runner,
        study,
        champion=champion,
        reference=space.reference,
        workload=workload,
        profile=profile,
        seconds=seconds - searched,
        seed=seed,
        clock=runner.clock,
        say=lambda _: None,
    )
    decision = decide(result, champion=champion, reference=space.reference)
    return Replayed(
        decision=decision, search_seconds=searched, run_seconds=runner.clock(), tried=tuple(tried)
    )


def replay_plan(request: TuneRequest, table: Path) -> tuple[TuneRequest, MeasuringPlan]:
    """The request under a profile for unpaired tables, and answers from ``table``'s rows of its symbol.

    Raises ``AutotuneError`` when the table cannot be read or has no row of the symbol.
    """
    recorded = seed_table(table, request.symbol)
    runner = ReplayRunner(recorded, TimingNoise.none())
    ticks = itertools.count()
    plan = MeasuringPlan(
        space=SearchSpace.of(recorded.entries),
        make_runner=lambda _: runner,
        clock=lambda: next(ticks) * 1e-3,  # a replay takes no time, so only its budget of trials ends it
    )
    request = dataclasses.replace(request, profile=seed_profile(request.profile), share=False, chance=0.0)
    return request, plan
