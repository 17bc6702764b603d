"""One tuning run of one symbol, from prices to a stored decision."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

from autotuner.errors import AutotuneError, cause
from autotuner.figures import Figures, SharedFrom, trial_figures, with_trial
from autotuner.measurement.outcome import ColdStart, Failed, Measured
from autotuner.measurement.runner import Runner
from autotuner.paths import studies_url
from autotuner.promotion.decision import Decision, decide
from autotuner.promotion.duel_plan import DuelResult
from autotuner.search.beginning import first_trials
from autotuner.search.scoring import judge, rank
from autotuner.search.search import Search, SearchPlan, SearchResult, TrialEvent
from autotuner.serving.canary import Canary
from autotuner.store import Promotion, Store, Subject
from autotuner.tuning.budget import COLD_START_SPARE, duel_seconds, search_seconds, trial_seconds
from autotuner.tuning.document import run_document
from autotuner.tuning.finalists import duel_of_finalists, why_unfit
from autotuner.tuning.fitted import most_together
from autotuner.tuning.measuring import MeasuringPlan, measuring, plan_measuring, prepare
from autotuner.tuning.request import Listener, TuneRequest
from autotuner.tuning.takeover import objection, proofs, shared_decision, spot_check, to_check
from autotuner.tuning.tuned import Found, Tuned, promote
from storage.patience import RUN_SECONDS, patience
from toto_core.series import PriceSeries


def tune(
    request: TuneRequest, store: Store, listener: Listener, plan: MeasuringPlan | None = None
) -> dict[str, Any]:
    """Search, duel, decide, store, and return the run's document (``document.run_document``).

    As ``tune_and_hold``, but that what wins is promoted before the device is free again.
    """
    return tune_and_hold(request, store, listener, plan, hold=False).document


def tune_and_hold(
    request: TuneRequest,
    store: Store,
    listener: Listener,
    plan: MeasuringPlan | None = None,
    *,
    hold: bool = True,
) -> Tuned:
    """Search, duel, decide; with ``hold`` the caller promotes (``promote``), or does not.

    ``plan`` answers from recorded measurements in place of real ones. An interrupt stores the run as
    interrupted and is raised again; everything measured so far is kept. Raises ``AutotuneError``,
    ``SeriesError``, ``CheckpointError`` or ``StorageError``, each with one line.
    """
    clock = plan.clock if plan else time.monotonic
    begun = clock()
    prepared = prepare(request.symbol, request.workload, prices=request.prices, device=request.device)
    subject, series = prepared.subject, prepared.series
    for repair in series.repairs:
        listener.say(f"{series.source}: {repair}")
    plan = plan or plan_measuring(
        prepared,
        profile=request.profile,
        limits=request.limits,
        seed=request.seed,
        threads=request.threads,
        most_together=_most_together(store, subject, listener),
    )
    if request.seconds is None and plan.why_seconds and request.profile.searches:
        listener.say(plan.why_seconds)
    seconds = plan.seconds if request.seconds is None else request.seconds
    store.remember(subject, series)
    run_id, _ = store.begin_run(
        subject, profile=request.profile.name, seed=request.seed, study=subject.study, resume=request.resume
    )
    try:
        left = max(0.0, begun + seconds - clock())
        with measuring(plan, store, seconds=left, say=listener.say) as under_way:
            run = _Run(
                request=request,
                subject=subject,
                series=series,
                store=store,
                listener=listener,
                plan=plan,
                run_id=run_id,
                runner=under_way.runner,
                check=under_way.check,
                begun=begun,
                seconds=seconds,
                hold=hold,
            )
            tuned = run.go(subject.study)
        with patience(RUN_SECONDS, listener.say):
            store.end_run(run_id, "finished", tuned.document)
    except BaseException as error:
        store.end_run(run_id, "interrupted" if isinstance(error, KeyboardInterrupt) else "failed")
        raise
    return tuned


def _most_together(store: Store, subject: Subject, listener: Listener) -> int | None:
    limit = most_together(store, subject)
    if limit is not None:
        listener.say(
            f"production ran out of memory: at most {limit} samples are decoded together from here on"
        )
    return limit


@dataclass(frozen=True, kw_only=True)
class _Run:
    """One run under way."""

    request: TuneRequest
    subject: Subject
    series: PriceSeries
    store: Store
    listener: Listener
    plan: MeasuringPlan
    run_id: str
    runner: Runner
    check: Callable[[], None]
    begun: float
    seconds: float
    hold: bool = False

    @property
    def left(self) -> float:
        """Seconds."""
        return max(0.0, self.begun + self.seconds - self.plan.clock())

    def go(self, study_name: str) -> Tuned:
        request = self.request
        champion = self.store.champion(self.subject, request.profile.name)
        found = None if champion else self._take_over()
        found = found or self._find(study_name, champion)
        asked = {name: getattr(request, name) for name in ("because", "triggers", "prices")}
        figures = replace(found.figures, deadline_ms=request.limits.deadline_ms, **asked)
        figures, interrupted = self._with_cold_start_alone(found.decision, figures)
        promotion = None
        if found.decision.promoted:
            replaced = champion if found.decision.verdict == "better" and 0 < request.canary < 1 else None
            canary = Canary(share=request.canary, previous=replaced.settings) if replaced else None
            promotion = self._promotion(found.decision, replace(figures, canary=canary))
        if interrupted and self.hold:
            raise KeyboardInterrupt
        document = run_document(
            request=request,
            decision=found.decision,
            figures=figures,
            study=found.study,
            distinct_keys=len(self.plan.space.keys),
            run_id=self.run_id,
            series=self.series,
            engine=self.subject.environment.engine,
            selftest=self.store.selftest(self.subject.environment),
        )
        tuned = Tuned(
            document=document,
            subject=self.subject,
            plan=self.plan,
            settings=found.decision.settings,
            promotion=promotion,
            unfit=found.unfit,
        )
        if promotion is not None and not self.hold:
            self.check()
            promote(self.store, tuned, promotion)
        if interrupted:
            raise KeyboardInterrupt
        return tuned

    def _take_over(self) -> Found | None:
        """What another symbol proved, if it stands here too."""
        request = self.request
        proven = to_check(request, self.plan.space, proofs(self.store, self.subject, request.profile.name))
        if proven is None:
            return None
        settings = proven.settings
        self.listener.say(f"{proven.symbol} proved {settings.label} for this workload: checking it here")
        outcome = spot_check(self.runner, proven, compiled=self.plan.holds(settings), seconds=self.left)
        self.store.record(self.subject, self.run_id, settings, outcome, "search")
        terms = request.workload, request.profile, request.limits
        refused = objection(proven, outcome, judge(outcome, *terms))
        if refused is not None or not isinstance(outcome, Measured):
            self.listener.say(f"{refused}; searching instead")
            return None
        shared_from = SharedFrom(symbol=proven.symbol, promotion=proven.promotion_id, ratio=proven.ratio)
        figures = trial_figures(outcome, request.workload)
        known = {settings: outcome}
        ranked = rank(known, *terms)
        study = SearchResult(
            outcomes=known, ranked=ranked, measured=1, failed={}, reused=0, ended_because="shared"
        )
        return Found(
            study=study,
            decision=shared_decision(outcome, proven),
            figures=replace(figures, stage="shared", shared_from=shared_from),
        )

    def _find(self, study_name: str, champion: Promotion | None) -> Found:
        """Search, duel and decide."""
        study = self._search(study_name, champion)
        unfit = why_unfit(champion.settings, study) if champion else None
        staying = champion.settings if champion and not unfit else None
        if champion and unfit:
            self.listener.say(f"the champion {champion.settings.label} breaks a limit and goes: {unfit}")
        request, result = self.request, None
        if request.profile.searches:
            result = duel_of_finalists(
                self.runner,
                study,
                champion=staying,
                reference=self.plan.space.reference,
                workload=request.workload,
                profile=request.profile,
                seconds=self.left,
                seed=request.seed,
                clock=self.plan.clock,
                say=self.listener.say,
                looked=self.listener.looked,
            )
        decision = decide(result, champion=staying, reference=self.plan.space.reference)
        if champion and unfit:
            gone = f"The champion {champion.settings.label} breaks a limit ({unfit}) and goes."
            decision = replace(decision, reason=f"{gone} {decision.reason}")
        return Found(study=study, decision=decision, figures=self._figures(decision, study, result))

    def _search(self, study_name: str, champion: Promotion | None) -> SearchResult:
        request, space = self.request, self.plan.space
        known = self.store.known(self.subject, run_id=self.run_id) if request.reuse else {}
        whole = self.left
        self.listener.begin(request.symbol, request.workload, space, len(known), search_seconds(whole))
        return Search(
            runner=self.runner,
            space=space,
            workload=request.workload,
            profile=request.profile,
            limits=request.limits,
            known=known,
            first=first_trials(
                space, champion.settings if champion else None, self.store.winners_elsewhere(self.subject)
            ),
            plan=SearchPlan(trials=request.trials, seconds=whole, seed=request.seed, chance=request.chance),
            storage_url=studies_url(self.store.location),
            study_name=study_name,
            on_outcome=self._keep,
            on_open=self.listener.still_open,
            clock=self.plan.clock,
            seconds_for_trial=lambda _, left: trial_seconds(left),
            reserve=partial(duel_seconds, whole),
            cold_starts={
                settings: start
                for settings, start in self.store.cold_starts(self.subject).items()
                if self.plan.holds(settings)
            },
        ).run()

    def _keep(self, event: TrialEvent) -> None:
        self.check()
        self.store.record(self.subject, self.run_id, event.settings, event.outcome, "search")
        self.listener.trial(event)

    def _figures(self, decision: Decision, study: SearchResult, result: DuelResult | None) -> Figures:
        measured = study.outcomes.get(decision.settings)
        duelled = result.figures.get(decision.settings) if result else None
        if isinstance(measured, Measured):
            workload = self.request.workload
            return with_trial(duelled, measured) if duelled else trial_figures(measured, workload)
        if duelled is None:
            raise AutotuneError(
                f"{self.request.symbol}: nothing was measured within {self.seconds:.0f} s; "
                "give the run more time with --timeout"
            )
        return duelled

    def _with_cold_start_alone(self, decision: Decision, figures: Figures) -> tuple[Figures, bool]:
        """The figures with a cold start beside which nobody compiled, where time is left to measure it.

        And whether somebody interrupted that: the verdict stands whatever happens here.
        """
        cold_ms, settings = figures.cold_start_ms, decision.settings
        known = not figures.built_beside or cold_ms is None or figures.stage == "shared"
        if known or not decision.promoted or self.left < COLD_START_SPARE * (cold_ms or 0.0) / 1000.0:
            return figures, False
        try:
            start = self.runner.build((settings,), seconds=self.left, apart=True).get(settings)
        except KeyboardInterrupt:
            return figures, True
        except Exception as error:
            start = Failed(kind="crashed", detail=cause(error))
        if not isinstance(start, ColdStart):
            self.listener.say(f"the cold start alone was not measured: {start or 'no time'}")
            return figures, False
        return replace(figures, cold_start_ms=start.ms, built_beside=start.beside or None), False

    def _promotion(self, decision: Decision, figures: Figures) -> Promotion:
        return Promotion(
            symbol=self.subject.symbol,
            profile=self.request.profile.name,
            workload=self.request.workload,
            environment=self.subject.environment,
            settings=decision.settings,
            verdict=decision.verdict,
            reason=decision.reason,
            figures=figures,
            promoted_at=datetime.now(UTC),
            run_id=self.run_id,
        )
