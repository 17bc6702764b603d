"""A store with everything that a page can show: trials, launches, telemetry, roll-backs, pins, and hostile texts."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np

from autotuner.environment import current_environment
from autotuner.figures import Figures
from autotuner.measurement.outcome import Failed, Interval, Measured, Outcome
from autotuner.record_mapping import Promotion, promotion_record, telemetry_record
from autotuner.serving.spool import Quarantine, Window
from autotuner.store import Store
from storage.models import PROMOTIONS
from storage.rows import append
from tests.support.outcomes import measured, timing
from tests.support.promoted_store import (
    BF16,
    FAST,
    NOW,
    STEADY,
    WORKLOAD,
    duel_figures,
    measure,
    promotion,
    reference,
)
from toto_core.settings import RuntimeSettings

HOSTILE = "<script>document.title='pwned'</script><img src=x onerror=\"document.title='pwned'\">"


def trials(*, seed: int = 0) -> dict[RuntimeSettings, Outcome]:
    """What a search may come to: some that keep their limits, one that drifts too far, one that failed."""
    rng = np.random.default_rng(seed)
    return {
        reference(): _trial(2.5, rng),
        FAST: _trial(0.9, rng, drift=0.004),
        STEADY: _trial(1.3, rng),
        BF16: _trial(2.8, rng, drift=0.03),
        STEADY.replace(precision="bf16"): _trial(1.2, rng, drift=0.002),
        STEADY.replace(compile_scope="layer"): Failed(kind="compile_error", detail=f"no g++ {HOSTILE}"),
    }


def window(
    symbol: str, settings: RuntimeSettings, at: datetime, *, place: int = 40, eager: int = 0
) -> Window:
    """A minute of a hundred calls whose latency lies at one place of the histogram."""
    return Window(
        symbol=symbol,
        settings_key=settings.key,
        environment_fingerprint=current_environment().fingerprint,
        window_start=at,
        window_end=at + timedelta(minutes=1),
        longest_ms=3.0,
        recompiles=0,
        eager_calls=eager,
        limit_hits=0,
        shapes={(512, 8, 256): 100},
        buckets={place: 100},
    )


def quarantine(symbol: str, settings: RuntimeSettings, at: datetime, reason: str) -> Quarantine:
    """Settings that failed in production."""
    return Quarantine(
        symbol=symbol,
        settings_key=settings.key,
        environment_fingerprint=current_environment().fingerprint,
        reason=reason,
        failed_at=at,
    )


def figures() -> Figures:
    """Of a duel of five launches."""
    launches = (2.79, 2.85, 2.77, 2.88, 2.76)
    return replace(duel_figures(), launch_ratios=launches, deadline_ms=3.5, reproduced=5)


def tuned(store: Path, symbol: str, *, seed: int = 0) -> None:
    """A symbol that was searched, promoted twice with a roll-back between, and watched for an hour."""
    measure(store, trials(seed=seed), symbol)
    with Store(str(store)) as opened:
        opened.promote(promotion(symbol, STEADY, minutes=-60))
        opened.records.roll_back(symbol, f"it was slow {HOSTILE}", NOW - timedelta(minutes=30))
        newest = promotion(symbol)
        reason = f"{newest.reason} {HOSTILE}"
        opened.promote(replace(newest, figures=figures(), reason=reason))
        for minute in range(24):
            note = window(symbol, FAST, NOW + timedelta(minutes=minute + 1), place=40 + (minute % 3))
            opened.records.add_telemetry(telemetry_record(note))


def many(store: Path, symbols: int, *, windows: int = 12) -> None:
    """As many promoted symbols, each with some telemetry, written at once."""
    chosen = (FAST, STEADY, BF16)
    with Store(str(store)) as opened:
        opened.remember_setting(WORKLOAD, current_environment())
        notes = []
        with opened.records._database.write() as connection:
            for number in range(symbols):
                symbol, settings = f"S{number:04}", chosen[number % 3]
                low = 1.0 + (number % 97) / 40
                speed = Interval(estimate=low + 0.1, low=low, high=low + 0.2)
                new: Promotion = promotion(symbol, settings, minutes=-number)
                shown = replace(figures(), ratio=speed, p50_ms=0.5 + number % 7)
                record = promotion_record(replace(new, figures=shown))
                append(connection, PROMOTIONS, record, ("id", "rolled_back_at", "rolled_back_reason"))
                notes += [
                    window(
                        symbol, settings, NOW + timedelta(minutes=minute), place=40 + (number + minute) % 9
                    )
                    for minute in range(windows)
                ]
        with opened.records._database.write() as connection:
            from storage.models import TELEMETRY

            for note in notes:
                append(connection, TELEMETRY, telemetry_record(note))
        opened.publish()


def _trial(p50_ms: float, rng: np.random.Generator, *, drift: float = 0.0) -> Measured:
    def blocks(centre: float) -> tuple[tuple[tuple[float, ...], ...], ...]:
        calls = centre * np.exp(rng.gamma(2.0, 0.03, size=(24, 12)))
        return (tuple(tuple(map(float, block)) for block in calls),)

    found = measured(
        timing(p50_ms, 0.1),
        reference=(timing(2.5, 0.1),),
        drift=drift,
        cold_start_ms=26_000.0,
        blocks=blocks(p50_ms),
    )
    ratio = Interval(estimate=2.5 / p50_ms, low=2.4 / p50_ms, high=2.6 / p50_ms)
    return replace(found, ratio=ratio, reference_blocks=blocks(2.5), warm_start_ms=40.0, peak_bytes=400 << 20)
