"""How many seconds a run takes when nobody says, and how they are shared out between search, trials and duel."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from types import MappingProxyType

from autotuner.search.gain_model import LeftOpen, Tried, outlooks
from autotuner.search.space import SearchSpace, likely_winners
from toto_core.settings import RuntimeSettings

USUAL_SECONDS, MOST_SECONDS = 300.0, 900.0
DUEL_SHARE = 0.4
"""Most of the time that is kept for the duel: search figures only rank."""
_DUEL_LAUNCHES, _DUEL_ARMS = 7, 3
"""Launches of three arms that a duel should have time for: five of its second stage, two of the first."""
LONGEST_TRIAL_SECONDS, SHORTEST_TRIAL_SECONDS = 150.0, 60.0
COLD_START_SPARE = 1.3
"""Times a cold start that was seen beside others: what must be left to measure it alone."""
_REFERENCE_SECONDS = 30.0
"""Of a run: its reference starts, and a duel has time for the fewest launches that settle anything."""
_SECONDS_A_MEGABYTE = 0.04
"""What a trial takes longer for every megabyte of weights: with 605 MB of a 151 M shape eager trials took 17 to 36 s
(benchmarks/results/grid-big-AMD.json), with toto-mini 4 to 6."""


def search_seconds(left: float) -> float:
    """What the search may take of the seconds ``left``."""
    return max(0.0, left * (1 - DUEL_SHARE))


def duel_seconds(whole: float, shortest: float | None) -> float:
    """What is kept for the duel of ``whole`` seconds: its share, less where processes start and answer soon.

    ``shortest`` is what a trial took that compiled nothing, which is what a launch takes of each arm.
    """
    most = DUEL_SHARE * whole
    return most if shortest is None else min(most, _DUEL_LAUNCHES * _DUEL_ARMS * shortest)


def trial_seconds(left: float) -> float:
    """What a trial may take of the seconds ``left``: half, so that one that hangs leaves time for others."""
    return min(LONGEST_TRIAL_SECONDS, left, max(left / 2, SHORTEST_TRIAL_SECONDS))


def seconds_to_settle(left_open: LeftOpen) -> int | None:
    """What a further run is expected to need to know whether something not tried is better, its duel included.

    None where that is as good as known.
    """
    if left_open.seconds <= 0:
        return None
    return math.ceil((left_open.seconds + _REFERENCE_SECONDS) / (1 - DUEL_SHARE))


def likely_trials(space: SearchSpace) -> frozenset[RuntimeSettings]:
    """What a search is expected to try: the likely winners in every mode, the reference, and eager bf16."""
    winners = likely_winners(space)
    modes = {key.compile_mode for key in space.keys}
    wanted = {space.canonical(winner.replace(compile_mode=mode)) for winner in winners for mode in modes}
    wanted |= {space.reference, space.canonical(space.reference.replace(precision="bf16"))}
    return frozenset(wanted & {*space.keys})


def expected_search(space: SearchSpace, *, slots: int, weights_bytes: int) -> float:
    """Seconds until the likely trials are made, built ``slots`` at a time and timed one by one."""
    return expected_trials(likely_trials(space), space, slots=slots, weights_bytes=weights_bytes)


def expected_trials(
    wanted: Collection[RuntimeSettings],
    space: SearchSpace,
    *,
    slots: int,
    weights_bytes: int,
    took: Mapping[RuntimeSettings, float] = MappingProxyType({}),
    at_hand: frozenset[RuntimeSettings] = frozenset(),
    extra: int = 0,
) -> float:
    """Seconds of these trials and of ``extra`` ones that compile nothing.

    Built ``slots`` at a time and timed one by one; what is ``at_hand`` is built. At the usual costs, corrected by
    what trials of the same workload ``took`` here.
    """
    device = "cpu" if space.facts is None else space.facts.device
    tried = {settings: Tried(score=1.0, seconds=seconds) for settings, seconds in took.items()}
    asked = sorted({*wanted, space.reference}, key=_key)
    costs = {look.settings: look.seconds for look in outlooks(asked, tried, compiled=at_hand, device=device)}
    timing = min(costs.values())  # what one costs that compiles nothing
    building = sum(costs[settings] - timing for settings in wanted if settings not in at_hand)
    heavy = 0.0 if took else _SECONDS_A_MEGABYTE * weights_bytes / 1e6
    return building / slots + (len(wanted) + extra) * (timing + heavy)


def seconds_by_itself(expected: float) -> float:
    """What a run may take where nobody says: the usual time if a search that takes ``expected`` fits into it."""
    return USUAL_SECONDS if expected <= search_seconds(USUAL_SECONDS) else MOST_SECONDS


def _key(settings: RuntimeSettings) -> str:
    return settings.key
