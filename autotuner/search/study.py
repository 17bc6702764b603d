"""Runs one search: has proposed settings measured until the budget is spent or every key is known."""

from __future__ import annotations

import contextlib
import hashlib
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from autotuner.errors import AutotuneError, UsageError
from autotuner.measurement.runner import Runner
from autotuner.measurement.trial import Failed, Measured, Outcome
from autotuner.search.objective import Judged, Limits, Profile, Ranked, judge, rank
from autotuner.search.owner import Owner
from autotuner.search.sampler import Proposal, SettingsSampler, open_sampler
from autotuner.search.space import SearchSpace, cost_order
from autotuner.workload import Workload
from toto_core.settings import RuntimeSettings

Ending = Literal["trials", "seconds", "exhausted"]
"""Why a study ended: its number of trials, its time, or every key of the space is known."""


@dataclass(frozen=True, kw_only=True)
class StudyPlan:
    """What a search may cost: new measurements, and seconds by the study's clock.

    After ``repeats`` proposals in a row that were known already, the cheapest unknown key is measured
    instead. Raises ``UsageError``.
    """

    trials: int
    seconds: float
    seed: int
    repeats: int = 10

    def __post_init__(self) -> None:
        if self.trials < 0:
            raise UsageError(f"study: trials must be 0 or more, not {self.trials}")
        if not self.seconds >= 0:
            raise UsageError(f"study: seconds must be 0 or more, not {self.seconds}")
        if self.repeats < 1:
            raise UsageError(f"study: repeats must be 1 or more, not {self.repeats}")


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
) -> StudyResult:
    """Search ``space`` for the settings with the best score and return everything that is known at the end.

    ``known`` settings are never measured; ``first`` are tried before any other, in order, also those outside
    the space. ``on_outcome`` hears of every outcome before Optuna does, so that a kill loses nothing that was
    stored there. ``seconds_for_trial`` gets the settings and the seconds left, and says how long a trial of
    them may take. Optuna's own tables live in ``storage_url`` (None: in memory); a study that was ended by a
    kill or a KeyboardInterrupt goes on when it is run again under the same ``study_name``.

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


class _OutOfTimeError(Exception):
    """No second is left for the settings that were proposed."""


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
    outcomes: dict[RuntimeSettings, Outcome]
    wanted: Sequence[RuntimeSettings]
    first: Sequence[RuntimeSettings]
    trials: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    repeats: int = 0

    def run(self, sampler: SettingsSampler) -> Ending:
        until = self.clock() + self.plan.seconds
        sampler.learn({settings: self.judge(outcome) for settings, outcome in self.outcomes.items()})
        queue = deque(self.first)
        cheapest = deque(cost_order(self.wanted))
        while True:
            ended = self._ended(queue, cheapest, until)
            if ended is not None:
                return ended
            try:
                self._step(sampler, queue, cheapest, until)
            except _OutOfTimeError:
                return "seconds"

    def _ended(
        self, queue: deque[RuntimeSettings], cheapest: deque[RuntimeSettings], until: float
    ) -> Ending | None:
        for waiting in (queue, cheapest):
            while waiting and waiting[0] in self.outcomes:
                waiting.popleft()
        if not queue and not cheapest:
            return "exhausted"
        if self.trials >= self.plan.trials:
            return "trials"
        return "seconds" if self.clock() >= until else None

    def _step(
        self,
        sampler: SettingsSampler,
        queue: deque[RuntimeSettings],
        cheapest: deque[RuntimeSettings],
        until: float,
    ) -> None:
        asked: RuntimeSettings | None = None
        if queue:
            asked = queue[0]
        elif self.repeats >= self.plan.repeats:
            asked = cheapest[0]
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
        if isinstance(outcome, Failed):
            self.failed[outcome.kind] += 1
        self.outcomes[settings] = outcome
        self.on_outcome(
            TrialEvent(
                number=self.trials,
                settings=settings,
                outcome=outcome,
                judged=self.judge(outcome),
                seconds=self.clock() - started,
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
        try:
            return self.runner.measure(settings, seconds=seconds, beat=self._certain())
        except Exception as error:
            return Failed(kind="crashed", detail=f"the runner raised {type(error).__name__}: {error}")
