"""The reference against itself: how often this machine crowns a false winner, and what gain it can prove.

Two arms that are the same thing under distinct keys are really launched and timed, as in a duel. Under no
difference either arm may be called the challenger, so every relabelling of the launches is a duel that could
have been: the duel's own rule is asked about many of them (a permutation test, Fisher 1935). The same
launches with a known share taken off one arm's times tell what gain would have been proven.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from autotuner.device_lock import Say
from autotuner.errors import AutotuneError
from autotuner.measurement.outcome import ArmBlocks, ArmLaunch, Conditions, Interval
from autotuner.measurement.runner import Runner
from autotuner.measurement.statistics import EffectiveCost, launch_ratio
from autotuner.promotion.duel_plan import DuelPlan
from autotuner.search.profiles import profile
from autotuner.store import Store
from autotuner.tuning.measuring import effective_cost, measuring, plan_measuring, prepare
from autotuner.workload import Workload
from toto_core.prices.options import PriceSource
from toto_core.settings import RuntimeSettings

LAUNCHES = 10
REPLAYS = 400
"""Relabelled duels: no false winner among them is a rate of at most 0.75 % (Clopper and Pearson 1934)."""
GAINS = (0.04, 0.05, 0.06, 0.08, 0.10, 0.12, 0.15, 0.20, 0.25, 0.30, 0.40, 0.50)
POWER = 0.8
"""A gain counts as detectable when four duels in five would prove it."""

Pair = tuple[ArmBlocks, ArmBlocks]


@dataclass(frozen=True, kw_only=True)
class SelfTest:
    """What a self-test found.

    ``false_winner_rate`` is the share of relabelled duels that promoted one of two equals, at most
    ``false_winner_bound`` (one-sided 95 %); ``smallest_detectable_gain`` is None when not even half the time
    saved would be proven. ``blocks`` were timed per arm, of which ``disturbed_blocks`` beside other work.
    """

    false_winner_rate: float
    false_winner_bound: float
    smallest_detectable_gain: float | None
    launches: int
    blocks: int
    disturbed_blocks: int


def self_test_machine(
    symbol: str,
    workload: Workload,
    location: str,
    *,
    device: str,
    seconds: float,
    launches: int,
    seed: int,
    say: Say,
) -> dict[str, Any]:
    """Self-test this machine on a symbol's prices; what was found, with its environment, is stored and returned.

    The store at ``location`` is opened once prices and model are known to be there. Raises ``AutotuneError``,
    ``SeriesError``, ``CheckpointError`` or ``StorageError``, each with one line.
    """
    end = time.monotonic() + seconds
    prepared = prepare(symbol, workload, prices=PriceSource(), device=device)
    wanted, environment = profile("production"), prepared.subject.environment
    plan = plan_measuring(prepared, profile=wanted, seed=seed)
    with (
        Store(location) as store,
        measuring(plan, store, seconds=seconds, say=say, say_steps=lambda _: None) as under_way,
    ):
        found = self_test(
            under_way.runner,
            plan.space.reference,
            cost=effective_cost(workload, wanted),
            seconds=max(0.0, end - time.monotonic()),
            clock=time.monotonic,
            say=say,
            rng=np.random.default_rng(seed),
            launches=launches,
        )
        document = asdict(found) | {"environment": json.loads(environment.to_json())}
        store.remember_setting(workload, environment)
        store.remember_selftest(environment, document, at=datetime.now(UTC))
    return document


def equal_arms(reference: RuntimeSettings) -> tuple[RuntimeSettings, RuntimeSettings]:
    """Two keys of one thing: eager mode has no graph to recompile."""
    return reference, reference.replace(recompile_limit=reference.recompile_limit + 1)


def self_test(
    runner: Runner,
    reference: RuntimeSettings,
    *,
    cost: EffectiveCost,
    seconds: float,
    clock: Callable[[], float],
    say: Say,
    rng: np.random.Generator,
    launches: int = LAUNCHES,
    replays: int = REPLAYS,
) -> SelfTest:
    """Launch the reference against itself for about ``seconds`` and replay its duels.

    Raises ``AutotuneError`` when fewer launches than a duel's came of it.
    """
    plan, arms, end = DuelPlan(), equal_arms(reference), clock() + seconds
    pairs: list[Pair] = []
    conditions: list[Conditions] = []
    longest = 0.0
    while len(pairs) < launches and clock() + longest <= end:
        begun = clock()
        launch = runner.launch(arms, blocks=plan.blocks, seconds=end - begun)
        longest = max(longest, clock() - begun)
        ours, theirs = (launch.arm(arm) for arm in arms)
        if isinstance(ours, ArmLaunch) and isinstance(theirs, ArmLaunch):
            pairs.append((ours.blocks, theirs.blocks))
            conditions.append(launch.conditions)
        say(f"launch {len(pairs)} of {launches} of the reference against itself")
    if len(pairs) < plan.stage2_launches:
        raise AutotuneError(
            f"self-test: {len(pairs)} of at least {plan.stage2_launches} launches came within {seconds:.0f} s; "
            "give it more time with --timeout"
        )
    say(f"asking the duel's rule about {replays} relabelled duels")
    false = sum(_promotes(pairs, 0.0, cost, plan, rng) for _ in range(replays))
    return SelfTest(
        false_winner_rate=false / replays,
        false_winner_bound=upper_bound(false, replays),
        smallest_detectable_gain=_smallest_gain(pairs, cost, plan, rng, replays // 4),
        launches=len(pairs),
        blocks=sum(each.blocks for each in conditions),
        disturbed_blocks=sum(each.disturbed_blocks for each in conditions),
    )


def upper_bound(failures: int, trials: int, confidence: float = 0.95) -> float:
    """One-sided Clopper-Pearson bound of a rate: the largest that would give so few failures 5 % of the time."""
    from scipy.special import betaincinv

    return 1.0 if failures >= trials else float(betaincinv(failures + 1, trials - failures, confidence))


def _smallest_gain(
    pairs: Sequence[Pair], cost: EffectiveCost, plan: DuelPlan, rng: np.random.Generator, replays: int
) -> float | None:
    for gain in GAINS:
        if sum(_promotes(pairs, gain, cost, plan, rng) for _ in range(replays)) >= POWER * replays:
            return gain
    return None


def _promotes(
    pairs: Sequence[Pair], gain: float, cost: EffectiveCost, plan: DuelPlan, rng: np.random.Generator
) -> bool:
    """Whether one duel of relabelled launches, ``gain`` taken off the challenger's time, ends in *better*."""
    chosen = rng.choice(len(pairs), size=plan.stage2_launches, replace=False)
    flips = rng.random(plan.stage2_launches) < 0.5
    labelled = [pairs[i] if flip else pairs[i][::-1] for i, flip in zip(chosen, flips, strict=True)]
    challenger = [_scaled(ours, 1 - gain) for ours, _ in labelled]
    opponent = [theirs for _, theirs in labelled]
    for launches in plan.checked_after:
        ratio = launch_ratio(
            opponent[:launches],
            challenger[:launches],
            cost=cost,
            rng=rng,
            confidence=plan.confidence(launches),
            resamples=50,
        )
        found = Interval(estimate=1 - 1 / ratio.estimate, low=1 - 1 / ratio.low, high=1 - 1 / ratio.high)
        verdict = plan.verdict(found, launches)
        if verdict in plan.early or launches == plan.stage2_launches:
            return verdict == "better"
    return False


def _scaled(blocks: ArmBlocks, factor: float) -> ArmBlocks:
    return [[tuple(ms * factor for ms in block) for block in shape] for shape in blocks]
