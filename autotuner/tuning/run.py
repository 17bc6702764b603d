"""One tuning run of one symbol, from prices to a stored decision."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np

from autotuner.device_lock import alone
from autotuner.errors import AutotuneError
from autotuner.measurement.outcome import Measured
from autotuner.measurement.runner import Runner
from autotuner.paths import studies_url
from autotuner.promotion.decision import Decision, decide
from autotuner.promotion.duel import DuelPlan, DuelResult, run_duel
from autotuner.search.search import Search, StudyPlan, StudyResult, TrialEvent
from autotuner.search.space import likely_winners
from autotuner.serving.canary import canary_evidence
from autotuner.store import Promotion, Store, Subject
from autotuner.tuning.document import duel_figures, run_document, search_figures
from autotuner.tuning.finalists import duel_arm, finalists, why_unfit
from autotuner.tuning.measuring import Bench, effective_cost, prepare, process_bench
from autotuner.tuning.request import Listener, TuneRequest, search_seconds, trial_seconds
from autotuner.tuning.takeover import proven_elsewhere, shared_decision, shared_study, spot_check


def tune(
    request: TuneRequest, store: Store, listener: Listener, bench: Bench | None = None
) -> dict[str, Any]:
    """Search, duel, decide, store, and return the run's document (``summary.run_document``).

    An interrupt stores the run as interrupted and is raised again; everything measured so far is kept. Raises
    ``AutotuneError``, ``SeriesError``, ``CheckpointError`` or ``StorageError``, each with one line.
    """
    clock = bench.clock if bench else time.monotonic
    end = clock() + request.seconds
    workload = request.workload
    prepared = prepare(request.symbol, workload, data=request.data, device=request.device)
    subject, series = prepared.subject, prepared.series
    for repair in series.repairs:
        listener.say(f"{series.source}: {repair}")
    bench = bench or process_bench(
        workload=workload,
        profile=request.profile,
        limits=request.limits,
        device=request.device,
        series=series,
        patch_size=prepared.patch_size,
        seed=request.seed,
        threads=request.threads,
    )
    store.remember(subject, series)
    study_name = f"{subject.symbol} {workload.signature} {subject.environment.fingerprint}"
    run_id, _ = store.begin_run(
        subject, profile=request.profile.name, seed=request.seed, study=study_name, resume=request.resume
    )
    run = _Run(request=request, subject=subject, store=store, listener=listener, bench=bench, run_id=run_id)
    status: Any = "failed"
    try:
        with contextlib.ExitStack() as stack:
            if bench.exclusive:
                left = max(0.0, end - clock())
                lease = alone(store.records, request.device, seconds=left, say=listener.say)
                run = replace(run, check=stack.enter_context(lease).check)
            document = run.go(study_name, end)
        store.end_run(run_id, "finished", document)
        status = None
        return document
    except KeyboardInterrupt:
        status = "interrupted"
        raise
    finally:
        if status is not None:
            store.end_run(run_id, status)


@dataclass(frozen=True, kw_only=True)
class _Found:
    """What was measured, what was decided, and the figures of what the symbol runs."""

    study: StudyResult
    decision: Decision
    figures: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class _Run:
    """One run under way."""

    request: TuneRequest
    subject: Subject
    store: Store
    listener: Listener
    bench: Bench
    run_id: str
    check: Callable[[], None] = lambda: None
    """Raises once somebody else may measure on the device: nothing is stored from then on."""

    def go(self, study_name: str, end: float) -> dict[str, Any]:
        champion = self.store.champion(self.subject, self.request.profile.name)
        runner = self.bench.make_runner(self.listener.say)
        try:
            found = None if champion else self._take_over(runner, end)
            found = found or self._find(runner, study_name, champion, end)
        finally:
            runner.close()
        if self.request.because is not None:
            found = replace(found, figures=found.figures | {"because": self.request.because})
        if found.decision.promoted:
            self._promote(found.decision, found.figures | self._trial(found.decision, champion))
        return run_document(
            symbol=self.request.symbol,
            profile=self.request.profile,
            workload=self.request.workload,
            decision=found.decision,
            figures=found.figures,
            study=found.study,
            distinct_keys=len(self.bench.space.keys),
            run_id=self.run_id,
            selftest=self.store.selftest(self.subject.environment),
        )

    def _trial(self, decision: Decision, champion: Promotion | None) -> dict[str, Any]:
        if champion is None or decision.verdict != "better" or not 0 < self.request.canary < 1:
            return {}
        return canary_evidence(self.request.canary, champion.settings)

    def _take_over(self, runner: Runner, end: float) -> _Found | None:
        """What another symbol proved, if it stands here too."""
        request = self.request
        proven = None
        if request.share and request.reuse and request.profile.searches:
            proven = proven_elsewhere(self.store, self.subject, request.profile.name)
        if proven is None or proven.settings not in self.bench.space:
            return None
        self.listener.say(
            f"{proven.symbol} proved {proven.settings.label} for this workload: checking it here"
        )
        terms: dict[str, Any] = {
            "workload": request.workload,
            "profile": request.profile,
            "limits": request.limits,
        }
        check = spot_check(
            runner,
            proven,
            compiled=self.bench.holds(proven.settings),
            seconds=max(0.0, end - self.bench.clock()),
            **terms,
        )
        self.store.record(self.subject, self.run_id, proven.settings, check.outcome, "search")
        if check.refused is not None or not isinstance(check.outcome, Measured):
            self.listener.say(f"{check.refused}; searching instead")
            return None
        evidence = {"symbol": proven.symbol, "promotion": proven.promotion_id, "ratio": asdict(proven.ratio)}
        figures = search_figures(check.outcome, request.workload)
        return _Found(
            study=shared_study(check.outcome, proven, **terms),
            decision=shared_decision(check.outcome, proven),
            figures=figures | {"stage": "shared", "shared_from": evidence},
        )

    def _find(self, runner: Runner, study_name: str, champion: Promotion | None, end: float) -> _Found:
        """Search, duel and decide."""
        study = self._search(runner, study_name, champion, end)
        unfit = why_unfit(champion.settings, study) if champion else None
        if champion and unfit:
            self.listener.say(f"the champion {champion.settings.label} breaks a limit and goes: {unfit}")
        outgoing, champion = champion, None if unfit else champion
        result = self._duel(runner, study, champion, end)
        decision = decide(
            result,
            champion=champion.settings if champion else None,
            reference=self.bench.space.reference,
        )
        if outgoing and unfit:
            reason = (
                f"The champion {outgoing.settings.label} breaks a limit ({unfit}) and goes. {decision.reason}"
            )
            decision = replace(decision, reason=reason)
        return _Found(study=study, decision=decision, figures=self._figures(decision, study, result))

    def _search(self, runner: Runner, study_name: str, champion: Promotion | None, end: float) -> StudyResult:
        request, space = self.request, self.bench.space
        known = self.store.known(self.subject, run_id=self.run_id) if request.reuse else {}
        seconds = search_seconds(end - self.bench.clock())
        self.listener.begin(request.symbol, request.workload, space, len(known), seconds)
        first = [space.reference, space.reference.replace(precision="bf16")]
        first += [champion.settings] if champion else []
        first += self.store.winners_elsewhere(self.subject)
        first += likely_winners(space)
        return Search(
            runner=runner,
            space=space,
            workload=request.workload,
            profile=request.profile,
            limits=request.limits,
            known=known,
            first=[settings for settings in first if space.canonical(settings) in space],
            plan=StudyPlan(trials=request.trials, seconds=seconds, seed=request.seed, chance=request.chance),
            storage_url=studies_url(self.store.location),
            study_name=study_name,
            on_outcome=self._keep,
            clock=self.bench.clock,
            seconds_for_trial=lambda _, left: trial_seconds(left),
            cold_starts={
                settings: cold_ms
                for settings, cold_ms in self.store.cold_starts(self.subject).items()
                if self.bench.holds(settings)
            },
        ).run()

    def _keep(self, event: TrialEvent) -> None:
        self.check()
        self.store.record(self.subject, self.run_id, event.settings, event.outcome, "search")
        self.listener.trial(event)

    def _duel(
        self, runner: Runner, study: StudyResult, champion: Promotion | None, end: float
    ) -> DuelResult | None:
        if not self.request.profile.searches:
            return None
        reference = self.bench.space.reference
        challengers = finalists(study, reference, seconds=max(0.0, end - self.bench.clock()))
        if not challengers:
            return None
        self.listener.say(f"duel: {', '.join(settings.label for settings in challengers)}")
        profile = self.request.profile
        return run_duel(
            runner,
            challengers=[duel_arm(settings, study, profile) for settings in challengers],
            champion=duel_arm(champion.settings, study, profile) if champion else None,
            reference=duel_arm(reference, study, profile),
            cost=effective_cost(self.request.workload, self.request.profile),
            seconds=max(0.0, end - self.bench.clock()),
            plan=DuelPlan(),
            rng=np.random.default_rng(self.request.seed),
            clock=self.bench.clock,
            on_progress=self.listener.say,
        )

    def _figures(self, decision: Decision, study: StudyResult, result: DuelResult | None) -> dict[str, Any]:
        found = study.outcomes.get(decision.settings)
        measured = found if isinstance(found, Measured) else None
        workload, reference = self.request.workload, self.bench.space.reference
        stage2 = result.stage2 if result else ()
        rng = np.random.default_rng(self.request.seed)
        figures = duel_figures(
            decision.settings,
            reference=reference,
            stage2=stage2,
            measured=measured,
            workload=workload,
            rng=rng,
        )
        if figures is None and measured is not None:
            figures = search_figures(measured, workload)
        if figures is None:
            raise AutotuneError(
                f"{self.request.symbol}: nothing was measured within {self.request.seconds:.0f} s; "
                "give the run more time with --timeout"
            )
        return figures

    def _promote(self, decision: Decision, figures: dict[str, Any]) -> None:
        self.check()
        self.store.promote(
            Promotion(
                symbol=self.subject.symbol,
                profile=self.request.profile.name,
                workload=self.request.workload,
                environment=self.subject.environment,
                settings=decision.settings,
                verdict=decision.verdict,
                reason=decision.reason,
                evidence=figures,
                promoted_at=datetime.now(UTC),
                run_id=self.run_id,
            )
        )
        handed = self.bench.hand_over(decision.settings)
        if handed is not None:
            self.store.remember_artifacts(self.subject, decision.settings, *handed)
