"""One symbol, several models: which forecasts its own prices better, and of equals which is faster."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np

from autotuner.device_lock import Lease, measure_alone
from autotuner.environment import spare_memory
from autotuner.errors import AutotuneError
from autotuner.measurement.model_accuracy import MOST_WINDOWS, Beside, Losses, beside, best_first, losses
from autotuner.measurement.model_runner import Entrant, ModelRunner
from autotuner.measurement.outcome import Interval
from autotuner.measurement.statistics import launch_ratio
from autotuner.paths import trials_folder
from autotuner.store import Promotion, Store, Subject
from autotuner.tuning.measuring import Prepared, effective_cost, plan_measuring, prepare
from autotuner.tuning.request import Listener, TuneRequest
from autotuner.tuning.run import tune_and_hold
from autotuner.tuning.tuned import Tuned, promote
from toto_core.settings import RuntimeSettings

LAUNCHES = 5
FASTER = 1.03
"""What the lower bound of a speed-up has to reach for one model to be taken for faster than another."""
_LESS_ACCURATE = "less accurate"
_SAME = Interval(estimate=1.0, low=1.0, high=1.0)
_SECONDS_OF_ACCURACY, _SECONDS_OF_SPEED = 600.0, 300.0
CHOOSING_SECONDS = _SECONDS_OF_ACCURACY + _SECONDS_OF_SPEED
"""What choosing between several models takes at most, beside the run of each."""


@dataclass(frozen=True, kw_only=True)
class ModelLimits:
    """The largest mean absolute error in price units, and weighted quantile loss, that a model may have."""

    mae: float | None = None
    wql: float | None = None

    def broken_by(self, found: Losses) -> str | None:
        """Which limit a model breaks, in words, None for none."""
        for name, value, limit in (("MAE", found.mae, self.mae), ("quantile loss", found.wql, self.wql)):
            if limit is not None and value > limit:
                return f"{name} {value:.4g} is above the limit of {limit:.4g}"
        return None


@dataclass(frozen=True, kw_only=True)
class Scored:
    """A model with its losses on the symbol's last fifth, and beside the best one's; ``out`` says why it is not."""

    request: TuneRequest
    losses: Losses
    beside_best: Beside
    out: str | None = None

    @property
    def model(self) -> str:
        """Its name."""
        return self.request.workload.model


def tune_models(
    requests: Sequence[TuneRequest], store: Store, listener: Listener, limits: ModelLimits = ModelLimits()
) -> dict[str, Any]:
    """Tune the model that is best for the symbol, and return its run's document with ``models`` in it.

    The requests differ in their model alone. A model is out when another's losses are proven smaller on the same
    windows, or when it breaks a limit. What is left is tuned, each within its request's seconds; where all of it
    breaks limits of speed or memory, the next best model follows. Of several, the fastest is chosen where launches
    side by side prove it, else the one that the symbol runs, else the first. The chosen one becomes what the symbol
    runs, whatever that was. Raises as ``tune``.
    """
    contest = _Contest(requests=tuple(requests), store=store, listener=listener)
    scored = contest.scored(limits)
    for each in scored:
        listener.say(f"{each.model}: {_told(each)}")
    tuned = contest.tuned(scored)
    chosen, why, speeds = contest.fastest(tuned)
    document = tuned[chosen].document
    reason = f"{chosen} of {len(scored)} models: {why}. {document['decision']['reason']}"
    promotion = contest.promotion(tuned[chosen], reason)
    if promotion is not None:
        promote(store, tuned[chosen], promotion)
    return document | {
        "decision": document["decision"] | {"reason": reason},
        "promoted": promotion is not None,
        "models": [_document(each, chosen, tuned.get(each.model), speeds.get(each.model)) for each in scored],
    }


@dataclass(frozen=True, kw_only=True)
class _Contest:
    """Several models of one symbol on one device."""

    requests: tuple[TuneRequest, ...]
    store: Store
    listener: Listener

    def scored(self, limits: ModelLimits) -> list[Scored]:
        """Every model with its losses. Raises ``AutotuneError`` where none may be chosen."""
        prepared = [
            prepare(each.symbol, each.workload, prices=each.prices, device=each.device)
            for each in self.requests
        ]
        entrants = [
            _entrant(
                one.subject,
                plan_measuring(one, profile=request.profile, threads=request.threads).space.reference,
            )
            for one, request in zip(prepared, self.requests, strict=True)
        ]
        with self._alone(_SECONDS_OF_ACCURACY):
            forecasts = self._runner(prepared[0]).forecasts(
                entrants, windows=_windows(prepared[0]), seconds=_SECONDS_OF_ACCURACY
            )
        found = [losses(each, self.requests[0].workload.weights) for each in forecasts]
        best, rng = found[best_first(found)[0]], np.random.default_rng(self.requests[0].seed)
        scored = []
        for request, own in zip(self.requests, found, strict=True):
            compared = beside(own, best, rng, comparisons=math.comb(len(found), 2))
            out = limits.broken_by(own) or (_LESS_ACCURATE if compared.verdict == "worse" else None)
            scored.append(Scored(request=request, losses=own, beside_best=compared, out=out))
        if all(each.out for each in scored):
            raise AutotuneError("no model may be chosen: " + "; ".join(f"{e.model}: {e.out}" for e in scored))
        return scored

    def tuned(self, scored: Sequence[Scored]) -> dict[str, Tuned]:
        """What tuning came to of every model that may be chosen: those within their limits, or all where none is."""
        left = [each for each in scored if each.out is None]
        found = {each.model: tune_and_hold(each.request, self.store, self.listener) for each in left}
        fit = {model: tuned for model, tuned in found.items() if not tuned.unfit}
        next_best = sorted((e for e in scored if e.out == _LESS_ACCURATE), key=lambda each: each.losses.wql)
        for each in next_best:
            if fit:
                break
            self.listener.say(f"no better model keeps its limits: tuning {each.model}")
            tuned = tune_and_hold(each.request, self.store, self.listener)
            fit = {} if tuned.unfit else {each.model: tuned}
        return fit or found

    def fastest(self, tuned: Mapping[str, Tuned]) -> tuple[str, str, dict[str, Interval]]:
        """The model to choose, why, and how many times as fast each is as the one that stays without proof."""
        active = self.store.active(self.requests[0].symbol)
        runs = active.workload.model if active else None
        stays = runs if runs in tuned else next(iter(tuned))
        assert stays is not None
        if len(tuned) == 1:
            return stays, "no other is as accurate and within the limits", {}
        names = [stays, *(model for model in tuned if model != stays)]
        speeds = self._side_by_side(names, tuned)
        best = max(speeds, key=lambda model: speeds[model].low)
        if speeds[best].low >= FASTER:
            return (
                best,
                f"as accurate as {stays} as far as can be told, and {_times(speeds[best])} as fast",
                speeds,
            )
        why = "what it ran before stays" if stays == runs else "the first named stays"
        return stays, f"none is proven more accurate or faster, and {why}", speeds

    def promotion(self, tuned: Tuned, reason: str) -> Promotion | None:
        """What makes the chosen model the one that the symbol runs; None where it runs it already, unchanged."""
        subject, request = tuned.subject, self.requests[0]
        if tuned.promotion is not None:
            return replace(tuned.promotion, reason=reason)
        champion = self.store.champion(subject, request.profile.name)
        active = self.store.active(subject.symbol, request.profile.name)
        if champion is None or (active is not None and active.workload.model == champion.workload.model):
            return None
        return replace(
            champion,
            figures=replace(champion.figures, canary=None),
            reason=reason,
            promoted_at=datetime.now(UTC),
            run_id=tuned.document["run_id"],
        )

    def _side_by_side(self, names: Sequence[str], tuned: Mapping[str, Tuned]) -> dict[str, Interval]:
        """Time of the first model over that of each other one, once running."""
        request = self.requests[0]
        prepared = prepare(request.symbol, request.workload, prices=request.prices, device=request.device)
        entrants = [_entrant(tuned[model].subject, tuned[model].settings) for model in names]
        with self._alone(_SECONDS_OF_SPEED):
            taken = self._runner(prepared).launches(entrants, launches=LAUNCHES, seconds=_SECONDS_OF_SPEED)
        cost, rng = (
            effective_cost(request.workload, request.profile).time_alone,
            np.random.default_rng(request.seed),
        )
        if len(taken[0]) < 2:
            self.listener.say(
                "the models were not launched often enough side by side to tell which is faster"
            )
            return {names[0]: _SAME}
        pairs = zip(names[1:], taken[1:], strict=True)
        return {names[0]: _SAME} | {
            model: launch_ratio(taken[0], blocks, cost=cost, rng=rng) for model, blocks in pairs
        }

    def _alone(self, seconds: float) -> AbstractContextManager[Lease]:
        device, say = self.requests[0].device, self.listener.say
        return measure_alone(self.store.records, device, seconds=seconds, say=say)

    def _runner(self, prepared: Prepared) -> ModelRunner:
        return ModelRunner(
            close=prepared.series.close,
            last_fifth_start=prepared.series.last_fifth_start(),
            device=self.requests[0].device,
            memory_bytes=spare_memory(),
            say=self.listener.say,
            seed=self.requests[0].seed,
        )


def of_equals(speeds: Mapping[str, Interval], *, stays: str, runs: str | None) -> tuple[str, str]:
    """Of models that are equally good the one to run, and why.

    ``speeds`` are how many times as fast each is as ``stays``, which is left for proof alone; ``runs`` is what the
    symbol runs now.
    """
    best = max(speeds, key=lambda model: speeds[model].low)
    if best != stays and speeds[best].low >= FASTER:
        return best, f"as accurate as {stays} as far as can be told, and {_times(speeds[best])} as fast"
    kept = "what it ran before stays" if stays == runs else "the first named stays"
    return stays, f"none is proven more accurate or faster, and {kept}"


def _entrant(subject: Subject, settings: RuntimeSettings) -> Entrant:
    folder = trials_folder(subject.environment.fingerprint, subject.workload.signature, subject.model_digest)
    return Entrant(workload=subject.workload, settings=settings, caches=folder)


def _windows(prepared: Prepared) -> int:
    """As many windows as the last fifth holds side by side, at most ``MOST_WINDOWS``."""
    series, workload = prepared.series, prepared.subject.workload
    first = max(series.last_fifth_start(), workload.longest_context)
    return max(1, min(MOST_WINDOWS, (len(series) - first) // workload.longest_prediction))


def _told(scored: Scored) -> str:
    found, compared = scored.losses, scored.beside_best
    losses_of = f"MAE {found.mae:.4g}, quantile loss {found.wql:.4g} on {found.windows} windows"
    beside_best = f"{_times(compared.mae)} and {_times(compared.wql)} those of the best"
    return f"{losses_of}, {beside_best}{'' if scored.out is None else f': {scored.out}'}"


def _times(interval: Interval) -> str:
    return f"{interval.estimate:.2f} [{interval.low:.2f}, {interval.high:.2f}] times"


def _document(scored: Scored, chosen: str, tuned: Tuned | None, speed: Interval | None) -> dict[str, Any]:
    """One model in plain values."""
    compared = {"mae": scored.beside_best.mae, "quantile_loss": scored.beside_best.wql}
    unfit = "; ".join(tuned.unfit) if tuned else ""
    return {
        "model": scored.model,
        "chosen": scored.model == chosen,
        "out": scored.out or unfit or None,
        "mae": scored.losses.mae,
        "quantile_loss": scored.losses.wql,
        "windows": scored.losses.windows,
        "beside_best": {name: _plain(ratio) for name, ratio in compared.items()},
        "settings": tuned.settings.to_dict() if tuned else None,
        "times_as_fast": _plain(speed) if speed else None,
    }


def _plain(interval: Interval) -> dict[str, float | None]:
    """An interval for JSON, which knows no infinity: an end that is open is None."""
    return {name: value if math.isfinite(value) else None for name, value in asdict(interval).items()}
