"""Runs one search: has proposed settings measured until the budget is spent or every key is known."""

from __future__ import annotations

import contextlib
import hashlib
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from autotuner.errors import AutotuneError, UsageError
from autotuner.measurement.outcome import Failed, Measured, Outcome
from autotuner.measurement.runner import Runner
from autotuner.process import Owner
from autotuner.search.gain_model import Outlook, Tried, most_promising, outlooks, settled
from autotuner.search.profiles import Limits, Profile
from autotuner.search.sampler import Proposal, SettingsSampler, open_sampler
from autotuner.search.scoring import Judged, Ranked, judge, rank
from autotuner.search.space import SearchSpace
from autotuner.workload import Workload
from toto_core.settings import RuntimeSettings

Ending = Literal["trials", "seconds", "exhausted", "settled", "shared"]
"""Why a study ended: its number of trials, its time, every key is known, no other is likely to win, or another
symbol's duel had settled it before."""


@dataclass(frozen=True, kw_only=True)
class StudyPlan:
    """What a search may cost: new measurements, and seconds by the study's clock.

    The next key is the one expected to gain most per second; every tenth is TPE's, unless it proposes
    ``repeats`` known ones in a row. The search ends early when the chance that
    any unknown key beats the best by 2 % falls below ``chance``; 0 leaves none untried. Raises ``UsageError``.
    """

    trials: int
    seconds: float
    seed: int
    repeats: int = 3
    chance: float = 0.05

    def __post_init__(self) -> None:
        if self.trials < 0:
            raise UsageError(f"study: trials must be 0 or more, not {self.trials}")
        if not self.seconds >= 0:
            raise UsageError(f"study: seconds must be 0 or more, not {self.seconds}")
        if self.repeats < 1:
            raise UsageError(f"study: repeats must be 1 or more, not {self.repeats}")
        if not 0 <= self.chance < 1:
            raise UsageError(f"study: chance must be from 0 to below 1, not {self.chance}")


@dataclass(frozen=True, kw_only=True)
class TrialEvent:
    """A trial just measured: the ``number``-th of this search, in ``seconds`` by the study's clock."""

    number: int
    settings: RuntimeSettings
    outcome: Outcome
    judged: Judged
    seconds: float


@dataclass(frozen=True, kw_only=True)
class StudyResult:
    """What a search found.

    ``outcomes`` holds what was known before, too, and ``ranked`` the same, best first. ``measured`` and
    ``failed`` (by kind) count this search's own trials, ``reused`` the keys answered from what was known.
    """

    outcomes: Mapping[RuntimeSettings, Outcome]
    ranked: tuple[Ranked, ...]
    measured: int
    failed: Mapping[str, int]
    reused: int
    ended_because: Ending

    @property
    def total(self) -> int:
        """Distinct settings with an outcome: measured, failed or reused."""
        return self.measured + sum(self.failed.values()) + self.reused


def run_study(
    runner: Runner,
    *,
    space: SearchSpace,
    workload: Workload,
    profile: Profile,
    limits: Limits,
    known: Mapping[RuntimeSettings, Outcome],
    first: Sequence[RuntimeSettings],
    plan: StudyPlan,
    storage_url: str | None,
    study_name: str,
    owner: Owner,
    on_outcome: Callable[[TrialEvent], None],
    clock: Callable[[], float],
    seconds_for_trial: Callable[[RuntimeSettings, float], float],
    cold_starts: Mapping[RuntimeSettings, float] | None = None,
) -> StudyResult:
    """Search ``space`` for the settings with the best score and return everything that is known at the end.

    ``known`` settings are never measured; ``first`` are tried before any other, in order, also those outside
    the space. ``on_outcome`` hears of every outcome before Optuna does, so that a kill loses nothing that was
    stored there. ``seconds_for_trial`` gets the settings and the seconds left, and says how long a trial of
    them may take. ``cold_starts`` in milliseconds are known of settings whose compile artifacts are at hand:
    their trials do not compile again. Optuna's own tables live in ``storage_url`` (None: in memory); a study
    that was ended by a kill or a KeyboardInterrupt goes on when it is run again under the same ``study_name``.

    A profile that does not search measures the reference alone. An exception out of ``runner.measure`` is a
    ``crashed`` outcome. Raises ``AutotuneError`` when the study database fails, and whatever ``on_outcome``
    raises.
    """
    search = _Search(
        runner=runner,
        space=space,
        judge=lambda outcome: judge(outcome, workload, profile, limits),
        plan=plan,
        on_outcome=on_outcome,
        clock=clock,
        seconds_for_trial=seconds_for_trial,
        cold_starts=cold_starts or {},
        outcomes={space.canonical(settings): outcome for settings, outcome in known.items()},
        wanted=space.keys if profile.searches else (space.reference,),
        first=[space.canonical(settings) for settings in first] if profile.searches else [space.reference],
    )
    reused = sum(settings in search.outcomes for settings in {*search.wanted, *search.first})
    name = f"{study_name} / {profile.name} / {_digest(space, profile, limits)}"
    with open_sampler(
        space=space, url=storage_url, name=name, group=f"{study_name} / ", seed=plan.seed, owner=owner
    ) as sampler:
        ended = search.run(sampler)
    return StudyResult(
        outcomes=search.outcomes,
        ranked=rank(search.outcomes, workload, profile, limits, reference=space.reference),
        measured=search.trials - search.failed.total(),
        failed=dict(search.failed),
        reused=reused,
        ended_because=ended,
    )


def _digest(space: SearchSpace, profile: Profile, limits: Limits) -> str:
    """Scores of another profile or space must not mislead the sampler: they get a study of their own."""
    return hashlib.sha256(repr((space.digest, profile, limits)).encode()).hexdigest()[:8]


OPTUNAS_TURN = 10
"""Every how many trials TPE's proposal is taken, should the model of what is alike be wrong: more often finds the
best later (benchmarks/search.py, decision 9)."""


class _OutOfTimeError(Exception):
    """No time is left for what would be next."""


@dataclass(kw_only=True)
class _Search:
    """One search under way."""

    runner: Runner
    space: SearchSpace
    judge: Callable[[Outcome], Judged]
    plan: StudyPlan
    on_outcome: Callable[[TrialEvent], None]
    clock: Callable[[], float]
    seconds_for_trial: Callable[[RuntimeSettings, float], float]
    cold_starts: Mapping[RuntimeSettings, float]
    outcomes: dict[RuntimeSettings, Outcome]
    wanted: Sequence[RuntimeSettings]
    first: Sequence[RuntimeSettings]
    trials: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    repeats: int = 0
    seconds: dict[RuntimeSettings, float] = field(default_factory=dict)

    def run(self, sampler: SettingsSampler) -> Ending:
        until = self.clock() + self.plan.seconds
        sampler.learn({settings: self.judge(outcome) for settings, outcome in self.outcomes.items()})
        queue = deque(self.first)
        while True:
            while queue and queue[0] in self.outcomes:
                queue.popleft()
            untried = [settings for settings in self.wanted if settings not in self.outcomes]
            ended = self._ended(queue, untried, until)
            if ended is not None:
                return ended
            following = outlooks(untried, self._tried(), compiled=frozenset(self.cold_starts))
            if not queue and settled(following, self.plan.chance):
                return "settled"
            try:
                self._step(sampler, self._asked(queue, following, until), until)
            except _OutOfTimeError:
                return "seconds"

    def _ended(
        self, queue: Sequence[RuntimeSettings], untried: Sequence[RuntimeSettings], until: float
    ) -> Ending | None:
        if not queue and not untried:
            return "exhausted"
        if self.trials >= self.plan.trials:
            return "trials"
        return "seconds" if self.clock() >= until else None

    def _tried(self) -> dict[RuntimeSettings, Tried]:
        judged = {settings: self.judge(outcome) for settings, outcome in self.outcomes.items()}
        return {
            settings: Tried(score=each.score, feasible=each.feasible, seconds=self.seconds.get(settings))
            for settings, each in judged.items()
        }

    def _asked(
        self, queue: Sequence[RuntimeSettings], following: Sequence[Outlook], until: float
    ) -> RuntimeSettings | None:
        """Who is next: the first of the queue, the most promising, or None for whom Optuna proposes."""
        if queue:
            return queue[0]
        promising = most_promising(following, until - self.clock())
        if promising is None:
            raise _OutOfTimeError
        ours = self.trials % OPTUNAS_TURN or self.repeats >= self.plan.repeats
        return promising if ours else None

    def _step(self, sampler: SettingsSampler, asked: RuntimeSettings | None, until: float) -> None:
        if asked is not None and asked not in self.space:
            self._measure(asked, until)
            return
        proposal = sampler.propose(asked)
        try:
            self._settle(sampler, proposal, until)
        except _OutOfTimeError:
            sampler.fail(proposal, "no time was left")
            raise
        except BaseException as error:
            with contextlib.suppress(AutotuneError):  # what ended the search matters more
                sampler.fail(proposal, f"interrupted by {type(error).__name__}", interrupted=True)
            raise

    def _settle(self, sampler: SettingsSampler, proposal: Proposal, until: float) -> None:
        settings = proposal.settings
        if settings is None:
            self.repeats += 1
            sampler.fail(proposal, "no settings of this space")
            return
        if settings in self.outcomes:
            self.repeats += 1
        else:
            self._measure(settings, until)
        sampler.tell(proposal, self.judge(self.outcomes[settings]))

    def _measure(self, settings: RuntimeSettings, until: float) -> None:
        started = self.clock()
        seconds = min(until - started, self.seconds_for_trial(settings, until - started))
        if seconds <= 0:
            raise _OutOfTimeError
        outcome = self._outcome(settings, seconds)
        self.repeats = 0
        self.trials += 1
        self.seconds[settings] = self.clock() - started
        if isinstance(outcome, Failed):
            self.failed[outcome.kind] += 1
        self.outcomes[settings] = outcome
        self.on_outcome(
            TrialEvent(
                number=self.trials,
                settings=settings,
                outcome=outcome,
                judged=self.judge(outcome),
                seconds=self.seconds[settings],
            )
        )

    def _certain(self) -> float | None:
        """The ratio to the reference that the best settings within their limits have reached for certain."""
        lows = [
            outcome.ratio.low
            for outcome in self.outcomes.values()
            if isinstance(outcome, Measured) and self.judge(outcome).feasible
        ]
        return max(lows, default=None)

    def _outcome(self, settings: RuntimeSettings, seconds: float) -> Outcome:
        cold_ms = self.cold_starts.get(settings)
        try:
            outcome = self.runner.measure(
                settings, seconds=seconds, beat=self._certain(), again=cold_ms is not None
            )
        except Exception as error:
            return Failed(kind="crashed", detail=f"the runner raised {type(error).__name__}: {error}")
        if isinstance(outcome, Failed) or outcome.cold_start_ms is not None:
            return outcome
        return replace(outcome, cold_start_ms=cold_ms)
