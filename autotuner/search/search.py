"""Runs one search: picks the next configuration, has it measured and tells the study, until an end is reached."""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from autotuner.errors import AutotuneError, UsageError
from autotuner.measurement.outcome import ColdStart, Failed, Measured, Outcome
from autotuner.measurement.runner import Runner
from autotuner.search.ahead import built_together
from autotuner.search.beginning import queued, reused
from autotuner.search.gain_model import LeftOpen, Outlook, Tried, left_open, most_promising, settled
from autotuner.search.profiles import Limits, Profile
from autotuner.search.sampler import GainPerSecondSampler
from autotuner.search.scoring import Judged, Ranked, judge, rank
from autotuner.search.space import SearchSpace
from autotuner.search.study import SearchStudy, open_study
from autotuner.workload import Workload
from toto_core.settings import RuntimeSettings

Ending = Literal["trials", "seconds", "exhausted", "settled", "shared"]
"""Why a study ended: its number of trials, its time, every key is known, no other is likely to win, or another
symbol's duel had settled it before."""


@dataclass(frozen=True, kw_only=True)
class SearchPlan:
    """What a search may cost: new measurements, and seconds by the study's clock.

    ``repeats`` is how many known keys in a row TPE may propose. The search ends early when the chance that any
    unknown key beats the best by 2 % falls below ``chance``; 0 leaves none untried. Raises ``UsageError``.
    """

    trials: int
    seconds: float
    seed: int
    repeats: int = 3
    chance: float = 0.02

    def __post_init__(self) -> None:
        for name, least in (("trials", 0), ("seconds", 0), ("repeats", 1)):
            if not getattr(self, name) >= least:
                raise UsageError(f"search: {name} must be {least} or more, not {getattr(self, name)}")
        if not 0 <= self.chance < 1:
            raise UsageError(f"search: chance must be from 0 to below 1, not {self.chance}")


@dataclass(frozen=True, kw_only=True)
class TrialEvent:
    """A trial just measured: the ``number``-th of this search, in ``seconds`` by the study's clock."""

    number: int
    settings: RuntimeSettings
    outcome: Outcome
    judged: Judged
    seconds: float


@dataclass(frozen=True, kw_only=True)
class SearchResult:
    """What a search found.

    ``outcomes`` holds what was known before, too, and ``ranked`` the same, best first. ``measured`` and
    ``failed`` (by kind) count this search's own trials, ``reused`` the keys answered from what was known;
    ``left_open`` is what was not tried.
    """

    outcomes: Mapping[RuntimeSettings, Outcome]
    ranked: tuple[Ranked, ...]
    measured: int
    failed: Mapping[str, int]
    reused: int
    ended_because: Ending
    left_open: LeftOpen | None = None

    @property
    def total(self) -> int:
        """Distinct configurations with an outcome: measured, failed or reused."""
        return self.measured + sum(self.failed.values()) + self.reused


class _OutOfTimeError(Exception):
    """No time is left for what would be next."""


@dataclass(kw_only=True)
class Search:
    """One search of ``space`` for the configuration with the best score; ``run`` it once.

    What is ``known`` is never measured; ``first`` are tried before any other, in order, also those outside
    the space. ``on_outcome`` hears of every outcome before Optuna does, so that a kill loses nothing that was
    stored there; ``on_open`` hears between trials what is not tried yet. ``seconds_for_trial`` gets the
    configuration and the seconds left, and says how long its trial may take; ``reserve`` gets the seconds of the
    shortest trial that compiled nothing, None before there is one, and says how many of the plan's to leave at the
    end. ``cold_starts`` are those of configurations whose compile artifacts are at hand: their trials do not compile
    again. Optuna's own tables live in ``storage_url`` (None: in memory); a study that was ended by a kill or a
    KeyboardInterrupt goes on when it is run again under the same ``study_name``.
    """

    runner: Runner
    space: SearchSpace
    workload: Workload
    profile: Profile
    limits: Limits
    known: Mapping[RuntimeSettings, Outcome]
    first: Sequence[RuntimeSettings]
    plan: SearchPlan
    storage_url: str | None
    study_name: str
    on_outcome: Callable[[TrialEvent], None]
    clock: Callable[[], float]
    seconds_for_trial: Callable[[RuntimeSettings, float], float]
    reserve: Callable[[float | None], float] = lambda _: 0.0
    on_open: Callable[[LeftOpen], None] = lambda _: None
    cold_starts: Mapping[RuntimeSettings, ColdStart] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._queue = deque(queued(self.space, self.profile, self.first))
        self._outcomes = {self.space.canonical(key): outcome for key, outcome in self.known.items()}
        self._fresh: list[Outcome] = []
        self._at_hand: dict[RuntimeSettings, ColdStart | Failed] = dict(self.cold_starts)
        self._until = math.inf
        self._shortest: float | None = None

    def run(self) -> SearchResult:
        """Measure until an end is reached and return everything that is known by then.

        A profile that does not search measures the reference alone. An exception out of ``runner.measure`` is
        a ``crashed`` outcome. Raises ``AutotuneError`` when the study database fails, and whatever
        ``on_outcome`` raises.
        """
        known = reused(self.space, self.profile, self._queue, self._outcomes.keys())
        # Scores of another profile or space would mislead the sampler, so each has a study of its own.
        scored_by = repr((self.space.digest, self.profile, self.limits))
        digest = hashlib.sha256(scored_by.encode()).hexdigest()[:8]
        with open_study(
            url=self.storage_url,
            name=f"{self.study_name} / {self.profile.name} / {digest}",
            group=f"{self.study_name} / ",
            space=self.space,
            known={settings: self._judge(outcome) for settings, outcome in self._outcomes.items()},
            seed=self.plan.seed,
            make_sampler=self._sampler,
        ) as study:
            ended = self._until_ended(study)
            still_open = self._left_open(study)
        failed = Counter(outcome.kind for outcome in self._fresh if isinstance(outcome, Failed))
        return SearchResult(
            outcomes=self._outcomes,
            ranked=rank(
                self._outcomes, self.workload, self.profile, self.limits, reference=self.space.reference
            ),
            measured=len(self._fresh) - failed.total(),
            failed=dict(failed),
            reused=known,
            ended_because=ended,
            left_open=still_open,
        )

    def _judge(self, outcome: Outcome) -> Judged:
        return judge(outcome, self.workload, self.profile, self.limits)

    def _sampler(self, seed: int, since: int) -> GainPerSecondSampler:
        return GainPerSecondSampler(
            self.space,
            seed=seed,
            since=since,
            repeats=self.plan.repeats,
            known={settings: self._tried(settings, None) for settings in self._outcomes},
            compiled=frozenset(self.cold_starts),
            seconds_left=self._seconds_left,
        )

    def _until_ended(self, study: SearchStudy) -> Ending:
        self._until, told = self.clock() + self.plan.seconds, 0
        while True:
            while self._queue and self._queue[0] in self._outcomes:
                self._queue.popleft()
            ended = self._ended(study.outlooks() if self.profile.searches else ())
            if ended is not None:
                return ended
            if len(self._fresh) > told and (still_open := self._left_open(study)):
                told = len(self._fresh)
                self.on_open(still_open)
            try:
                self._step(study)
            except _OutOfTimeError:
                return "seconds"

    def _ended(self, following: Sequence[Outlook]) -> Ending | None:
        if not self._queue and not following:
            return "exhausted"
        if len(self._fresh) >= self.plan.trials:
            return "trials"
        left = self._seconds_left()
        if left <= 0:
            return "seconds"
        if self._queue:
            return None
        if settled(following, self.plan.chance):
            return "settled"
        return "seconds" if most_promising(following, left) is None else None

    def _left_open(self, study: SearchStudy) -> LeftOpen | None:
        return left_open(study.outlooks(), self.plan.chance) if self.profile.searches else None

    def _seconds_left(self) -> float:
        return self._until - self.reserve(self._shortest) - self.clock()

    def _tried(self, settings: RuntimeSettings, seconds: float | None) -> Tried:
        judged = self._judge(self._outcomes[settings])
        return Tried(score=judged.score, feasible=judged.feasible, seconds=seconds)

    def _step(self, study: SearchStudy) -> None:
        wanted = self._queue[0] if self._queue else None
        if wanted is not None and wanted not in self.space:
            study.sampler.note(wanted, self._tried(wanted, self._measure(wanted, study)))
            return
        trial, settings = study.ask(wanted)
        try:
            if settings is None:
                study.fail(trial, "no configuration of this space")
                return
            seconds = None if settings in self._outcomes else self._measure(settings, study)
            study.tell(trial, self._judge(self._outcomes[settings]), seconds)
        except _OutOfTimeError:
            study.fail(trial, "no time was left")
            raise
        except BaseException as error:
            with contextlib.suppress(AutotuneError):  # what ended the search matters more
                study.fail(trial, f"interrupted by {type(error).__name__}", interrupted=True)
            raise

    def _measure(self, settings: RuntimeSettings, study: SearchStudy) -> float:
        """Measure and hand over; returns the seconds it took, of a build its share of them."""
        share = self._build(settings, study)
        started = self.clock()
        outcome = self._outcome(settings, self._seconds_for(settings))
        took = self.clock() - started + share
        if isinstance(outcome, Measured) and not settings.compiled:
            self._shortest = took if self._shortest is None else min(took, self._shortest)
        self._fresh.append(outcome)
        self._outcomes[settings] = outcome
        number, judged = len(self._fresh), self._judge(outcome)
        self.on_outcome(
            TrialEvent(number=number, settings=settings, outcome=outcome, judged=judged, seconds=took)
        )
        return took

    def _seconds_for(self, settings: RuntimeSettings) -> float:
        left = self._seconds_left()
        seconds = min(left, self.seconds_for_trial(settings, left))
        if seconds <= 0:
            raise _OutOfTimeError
        return seconds

    def _build(self, settings: RuntimeSettings, study: SearchStudy) -> float:
        """Compile ``settings``, and beside it what is likely to be wanted next; its share of the seconds."""
        slots = self.runner.slots
        if slots > 1 and settings.compiled and settings not in self._at_hand:
            seconds = self._seconds_for(settings)
            unbuilt = [look for look in study.outlooks() if look.settings not in self._at_hand]
            together = built_together(settings, self._queue, unbuilt, slots=slots, seconds=seconds)
            self._at_hand |= self.runner.build(together, seconds=seconds)
        untried = self._at_hand.keys() - self._outcomes.keys() - {settings}
        study.sampler.compiled = frozenset(self.cold_starts.keys() | untried)
        start = self._at_hand.get(settings)
        if settings in self.cold_starts or not isinstance(start, ColdStart):
            return 0.0
        return start.ms / 1000.0 / slots

    def _certain(self) -> float | None:
        """The ratio to the reference that the best configuration within the limits is sure to reach."""
        lows = [
            outcome.ratio.low
            for outcome in self._outcomes.values()
            if isinstance(outcome, Measured) and self._judge(outcome).feasible
        ]
        return max(lows, default=None)

    def _outcome(self, settings: RuntimeSettings, seconds: float) -> Outcome:
        start = self._at_hand.get(settings)
        if isinstance(start, Failed):
            return start
        try:
            again = start is not None
            outcome = self.runner.measure(settings, seconds=seconds, beat=self._certain(), again=again)
        except Exception as error:
            return Failed(kind="crashed", detail=f"the runner raised {type(error).__name__}: {error}")
        if isinstance(outcome, Failed) or outcome.cold_start_ms is not None:
            return outcome
        return outcome.started_cold(start)
