"""What one run would do, said before it starts by the rules that decide in it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from autotuner.search.beginning import first_trials, queued, reused
from autotuner.search.space import SearchSpace
from autotuner.tuning.budget import (
    duel_seconds,
    expected_trials,
    likely_trials,
    search_seconds,
)
from autotuner.tuning.costs import Costs
from autotuner.tuning.request import TuneRequest
from autotuner.tuning.takeover import Proven, to_check
from toto_core.settings import RuntimeSettings

Does = Literal["search", "check", "reference"]
"""Search and duel; check once what another symbol proved; measure the reference alone."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """A workload in one environment: what a search may try there, and what is known of the costs.

    ``at_hand`` says whether what a configuration compiles to lies there, ``slots`` how many builds run at a time,
    ``seconds`` what a run takes at most that nobody gave a number.
    """

    space: SearchSpace
    costs: Costs
    at_hand: Callable[[RuntimeSettings], bool]
    slots: int
    weights_bytes: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Standing:
    """How a symbol stands before its run.

    ``known`` is what was measured on the prices that are there, ``elsewhere`` what other symbols run. ``follows`` is
    a symbol whose run comes before in the same plan and is expected to prove something for this one, too; ``built``
    is what runs before in the same plan will have compiled.
    """

    known: frozenset[RuntimeSettings] = frozenset()
    champion: RuntimeSettings | None = None
    elsewhere: tuple[RuntimeSettings, ...] = ()
    follows: str | None = None
    built: frozenset[RuntimeSettings] = frozenset()


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a run comes to.

    ``space`` is how many configurations there are, ``reused`` how many of them need no trial. ``certain`` trials are
    made whatever they show, as far as time goes; ``expected`` are those that a search usually makes, these included;
    ``most`` is where it ends for certain. Of the expected, ``builds`` are compiled, ``at_hand`` lie there compiled.
    ``proof_of`` is the symbol whose proof is checked, and ``assumed`` says that it has yet to be made. ``seconds``
    are expected, ``most_seconds`` the limit; ``measured`` says whether earlier runs told, or only the priors do.
    """

    does: Does
    space: int
    reused: int = 0
    certain: int = 0
    expected: int = 0
    most: int = 0
    builds: frozenset[RuntimeSettings] = frozenset()
    at_hand: int = 0
    proof_of: str | None = None
    assumed: bool = False
    settled: bool = False
    seconds: float
    most_seconds: float
    measured: bool = False


def work_of(
    request: TuneRequest,
    place: Place,
    standing: Standing,
    proofs: Iterable[Proven],
    settled: Callable[[], bool],
) -> Work:
    """What a run of ``request`` would do.

    ``proofs`` are what duels of any symbol proved there, newest first; ``settled`` says of a symbol all whose first
    trials are known whether the search has nothing left to try. Both are asked only where the answer hangs on them.
    """
    most = place.seconds if request.seconds is None else request.seconds
    if standing.champion is None:
        proven = to_check(request, place.space, proofs)
        if proven is not None:
            return _check(place, standing, proven.symbol, most, proven.settings)
        if standing.follows is not None and request.takes_over:
            return _check(place, standing, standing.follows, most, None)
    return _search(request, place, standing, settled, most)


def _check(
    place: Place, standing: Standing, symbol: str, most: float, proven: RuntimeSettings | None
) -> Work:
    """One trial of what is ``proven``; None for what has yet to be, which then lies there compiled."""
    compiled = proven is None or proven.compiled
    builds = frozenset[RuntimeSettings]()
    if proven is not None and proven.compiled and not (proven in standing.built or place.at_hand(proven)):
        builds = frozenset({proven})
    if place.costs.check is not None:
        seconds = place.costs.check
    else:
        seconds = _trials_seconds(builds, place, extra=not builds, alone=True)
    return Work(
        does="check",
        space=len(place.space.keys),
        certain=1,
        expected=1,
        most=1,
        builds=builds,
        at_hand=int(compiled and not builds),
        proof_of=symbol,
        assumed=proven is None,
        seconds=min(seconds, most),
        most_seconds=most,
        measured=place.costs.check is not None,
    )


def _search(
    request: TuneRequest, place: Place, standing: Standing, settled: Callable[[], bool], most: float
) -> Work:
    space, profile = place.space, request.profile
    known = frozenset(map(space.canonical, standing.known)) if request.reuse else frozenset()
    first = queued(space, profile, first_trials(space, standing.champion, standing.elsewhere))
    certain = [settings for settings in dict.fromkeys(first) if settings not in known][: request.trials]
    left = [key for key in space.keys if key not in known and key not in certain] if profile.searches else []
    done = profile.searches and not certain and (not left or settled())
    trials = _expected(certain, [] if done else left, space)[: request.trials]
    compiled = frozenset(settings for settings in trials if settings.compiled)
    at_hand = frozenset(each for each in compiled if each in standing.built or place.at_hand(each))
    return Work(
        does="search" if profile.searches else "reference",
        space=len(space.keys),
        reused=reused(space, profile, first, known),
        certain=len(certain),
        expected=len(trials),
        most=min(request.trials, len(certain) + (0 if done else len(left))),
        builds=compiled - at_hand,
        at_hand=len(at_hand),
        settled=done,
        seconds=_run_seconds(trials, place, at_hand, most, duels=profile.searches),
        most_seconds=most,
        measured=bool(place.costs.trials),
    )


def _expected(
    certain: Sequence[RuntimeSettings], left: Sequence[RuntimeSettings], space: SearchSpace
) -> list[RuntimeSettings]:
    likely = likely_trials(space)
    return [*certain, *(settings for settings in left if settings in likely)]


def _run_seconds(
    trials: Sequence[RuntimeSettings],
    place: Place,
    at_hand: frozenset[RuntimeSettings],
    most: float,
    *,
    duels: bool,
) -> float:
    search = _trials_seconds(trials, place, at_hand=at_hand)
    if not duels:
        return min(search, most)
    duel = place.costs.duel
    if duel is None:
        duel = duel_seconds(most, _trials_seconds((), place, extra=1))
    return min(most, min(search, max(search_seconds(most), most - duel)) + duel)


def _trials_seconds(
    trials: Collection[RuntimeSettings],
    place: Place,
    *,
    at_hand: frozenset[RuntimeSettings] = frozenset(),
    extra: int = 0,
    alone: bool = False,
) -> float:
    """Seconds of the trials and of ``extra`` ones of the reference; ``alone`` one after the other."""
    return expected_trials(
        trials,
        place.space,
        slots=1 if alone else place.slots,
        weights_bytes=place.weights_bytes,
        took=place.costs.trials,
        at_hand=at_hand,
        extra=extra,
    )
