"""What the tests of commands on a store put into it: promotions, measurements, and rows nobody can read."""

from __future__ import annotations

import hashlib
import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from autotuner.environment import current_environment
from autotuner.figures import Figures, trial_figures
from autotuner.measurement.outcome import Failed, Interval
from autotuner.store import Promotion, Store, Subject
from autotuner.workload import Workload
from storage.records import SeriesRecord
from tests.support.outcomes import measured, timing
from toto_core.settings import RuntimeSettings

NOW = datetime(2026, 5, 4, 12, 30, tzinfo=UTC)
WORKLOAD = Workload()
EAGER = RuntimeSettings()
BF16 = RuntimeSettings(precision="bf16")
FAST = RuntimeSettings(compile_mode="max-autotune", precision="bf16", freezing=True)
STEADY = RuntimeSettings(compile_mode="default")
UNREADABLE = '{"compile_mode":"warp"}'


def duel_figures() -> Figures:
    trial = measured(timing(12.5, 0.4), drift=0.004, cold_start_ms=27_300.0)
    return replace(
        trial_figures(trial, WORKLOAD),
        stage="duel",
        launches=5,
        ratio=Interval(estimate=2.81, low=2.74, high=2.88),
        warm_start_ms=3_100.0,
        mae=1.234,
        mae_reference=1.23,
        peak_bytes=412 << 20,
    )


def promotion(
    symbol: str = "AMD", chosen: RuntimeSettings = FAST, *, profile: str = "production", minutes: int = 0
) -> Promotion:
    return Promotion(
        symbol=symbol,
        profile=profile,
        workload=WORKLOAD,
        environment=current_environment(),
        settings=chosen,
        verdict="first",
        reason=f"{chosen.label} takes 64 % less time.",
        figures=duel_figures(),
        promoted_at=NOW + timedelta(minutes=minutes),
    )


def measure(path: Path, outcomes: dict[RuntimeSettings, Any], symbol: str = "AMD") -> Subject:
    """A finished run that measured ``outcomes`` and promoted nothing."""
    subject = Subject(
        symbol=symbol,
        workload=WORKLOAD,
        environment=current_environment(),
        series_digest=f"prices of {symbol}",
        model_digest="weights",
    )
    with Store(str(path)) as store:
        store.remember_setting(WORKLOAD, subject.environment)
        store.records.put(
            SeriesRecord(
                digest=subject.series_digest,
                symbol=symbol,
                source=f"{symbol}.csv",
                points=1000,
                first_timestamp=NOW - timedelta(days=1000),
                last_timestamp=NOW,
                first_seen=NOW,
            )
        )
        run_id, _ = store.begin_run(subject, profile="production", seed=0, study="study", resume=False)
        for chosen, outcome in outcomes.items():
            store.record(subject, run_id, chosen, outcome, "search")
        summary = {"decision": {"verdict": "same", "reason": "Nothing differs."}, "settings": EAGER.to_dict()}
        store.end_run(run_id, "finished", summary)
    return subject


def reference() -> RuntimeSettings:
    """Eager fp32 in the canonical form in which a search measures it."""
    return EAGER.replace(num_threads=current_environment().threads)


def outcomes() -> dict[RuntimeSettings, Any]:
    """FAST wins under production, drifts too far for accuracy, where STEADY wins."""
    return {
        reference(): measured(timing(100.0, 1.0)),
        FAST: measured(timing(30.0, 1.0), drift=0.005),
        STEADY: measured(timing(50.0, 1.0)),
        BF16: Failed(kind="timeout"),
    }


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write(path: Path, statement: str, *values: Any) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(statement, values)


def poison(
    path: Path, symbol: str = "AMD", *, settings: str = UNREADABLE, evidence: str = "{}", of: str = "AMD"
) -> None:
    """Append a promotion of ``symbol`` that no version can read, otherwise a copy of the newest one ``of``."""
    copied = "settings_key, profile, model, workload_signature, environment_fingerprint, promoted_at"
    write(
        path,
        f"INSERT INTO promotions (symbol, settings_json, verdict, reason, evidence_json, kind, {copied}) "
        f"SELECT ?, ?, 'better', '', ?, 'run', {copied} FROM promotions WHERE symbol = ? ORDER BY id DESC LIMIT 1",
        symbol,
        settings,
        evidence,
        of,
    )
