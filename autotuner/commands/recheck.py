"""Measures whether what a symbol runs still keeps its accuracy limits on the prices as they are now."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime

from autotuner.device_lock import Say
from autotuner.environment import current_environment
from autotuner.errors import AutotuneError
from autotuner.measurement.outcome import Failed, Outcome
from autotuner.record_mapping import telemetry_record
from autotuner.search.profiles import Limits, Profile, profile
from autotuner.search.scoring import judge
from autotuner.serving.spool import Recheck
from autotuner.store import Promotion, Store
from autotuner.tuning.measuring import Prepared, measuring, plan_measuring, prepare
from toto_core.series import PriceSeries, PriceSource


def recheck(
    symbol: str,
    store: Store,
    *,
    profile_name: str | None,
    prices: PriceSource,
    device: str,
    threads: int | None,
    seconds: float,
    say: Say,
) -> tuple[Recheck, PriceSeries]:
    """Compare what is active with uncompiled fp32 on today's prices, which are returned too, and store the result.

    Raises ``AutotuneError`` when nothing is promoted for this environment or there is too little time,
    ``SeriesError``, ``CheckpointError`` and ``StorageError``, each with one line.
    """
    end = time.monotonic() + seconds
    like = store.fingerprints_like(current_environment(device))  # other machines may have promoted since
    promotion = store.active_in(symbol, profile_name, like)
    if promotion is None:
        raise AutotuneError(f"{symbol}: nothing is promoted yet: run `autotune run --symbol {symbol}` first")
    wanted = profile(promotion.profile)
    source = prices.or_else(store.price_source(promotion))
    prepared = prepare(symbol, promotion.workload, prices=source, device=device)
    for repair in prepared.series.repairs:
        say(f"{prepared.series.source}: {repair}")
    differences = prepared.subject.environment.differences(promotion.environment)
    if differences:
        raise AutotuneError(
            f"{symbol}: its settings were promoted in another environment ({'; '.join(differences)}): "
            f"run `autotune run --symbol {symbol}` here"
        )
    plan = plan_measuring(prepared, profile=wanted, threads=threads)
    with measuring(plan, store, seconds=seconds, say=say) as under_way:
        begun = datetime.now(UTC)
        left, again = max(0.0, end - time.monotonic()), plan.holds(promotion.settings)
        outcome = under_way.runner.measure(promotion.settings, seconds=left, again=again)
        found = judged(promotion, prepared, outcome, wanted, begun=begun)
        under_way.check()
        keep(store, found)
    return found, prepared.series


def judged(
    promotion: Promotion, prepared: Prepared, outcome: Outcome, wanted: Profile, *, begun: datetime
) -> Recheck:
    """What an outcome that took from ``begun`` until now says of the limits.

    Raises ``AutotuneError`` for one that says nothing of them.
    """
    symbol, label = promotion.symbol, promotion.settings.label
    if isinstance(outcome, Failed) and outcome.kind != "drift_exceeded":  # a full disk is no fault of theirs
        raise AutotuneError(
            f"{symbol}: {label} could not be rechecked: {str(outcome).rstrip(': ')}; try again with more --timeout"
        )
    accuracy = None if isinstance(outcome, Failed) else outcome.accuracy
    return replace(
        nothing_measured(promotion, None, begun, datetime.now(UTC)),
        series_digest=prepared.subject.series_digest,
        broken=judge(outcome, promotion.workload, wanted, Limits()).reasons,
        drift=None if accuracy is None else accuracy.drift,
        quantile_shift=None if accuracy is None else accuracy.quantile_shift,
    )


def nothing_measured(promotion: Promotion, cause: str | None, begun: datetime, ended: datetime) -> Recheck:
    """A recheck that came to nothing because of ``cause``, so that it is not tried again at once."""
    return Recheck(
        symbol=promotion.symbol,
        settings_key=promotion.settings.key,
        environment_fingerprint=promotion.environment.fingerprint,
        profile=promotion.profile,
        model=promotion.workload.model,
        workload_signature=promotion.workload.signature,
        window_start=begun,
        window_end=ended,
        settings=promotion.settings.label,
        series_digest="",
        broken=(),
        drift=None,
        quantile_shift=None,
        drift_budget=profile(promotion.profile).drift_budget,
        failed=cause,
    )


def keep(store: Store, found: Recheck) -> None:
    """Store a recheck beside production's telemetry."""
    store.records.add_telemetry(telemetry_record(found))
