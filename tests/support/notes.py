"""Notes as the version before typed ones wrote them, and rows that version could store and nobody can read."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

KEY = (
    "compile_mode=default precision=fp32 recompile_limit=8 series_per_batch=1 samples_per_batch=None "
    "context_bucket=0 dynamic=False freezing=False compile_scope=full num_threads=1"
)
WINDOW = (
    '{"kind":"telemetry","symbol":"AMD","profile":"production","model":"toto-mini","workload_signature":'
    '"e40781d05b94b61c","environment_fingerprint":"6d7a42f174d2d14d","settings_key":"' + KEY + '","source":'
    '"promotion","window_start":"2026-11-25T18:48:19.260355+00:00","window_end":'
    '"2026-11-25T18:49:19.260665+00:00","calls":3,"longest_ms":2.75,"recompiles":1,"eager_calls":0,'
    '"limit_hits":0,"shapes":{"512/8/256":3},"buckets":{"57":2,"64":1}}'
)
QUARANTINE = (
    '{"kind":"quarantine","symbol":"AMD","model":"toto-mini","workload":{"model":"toto-mini","revision":null,'
    '"series_per_call":1,"calls_per_process":10000,"requests":[{"context_length":512,"prediction_length":8,'
    '"num_samples":256,"variates":1,"weight":1.0}]},"workload_signature":"e40781d05b94b61c","profile":null,'
    '"source":"explicit","settings_key":"'
    + KEY
    + '","settings":{"compile_mode":"default","precision":"fp32",'
    '"recompile_limit":8,"series_per_batch":1,"samples_per_batch":null,"context_bucket":0,"dynamic":false,'
    '"freezing":false,"compile_scope":"full","num_threads":1},"environment_fingerprint":"6d7a42f174d2d14d",'
    '"environment":{"device":"cpu","hardware":"AuthenticAMD / 25 / 1 / AMD EPYC / 1","isa":"1ddebed04610",'
    '"driver":"","torch":"2.13.0+cpu","engine":"2","threads":2},"reason":"CppCompileError: no g++",'
    '"failed_at":"2026-11-25T18:48:19.263561+00:00","pid":10135}'
)
RECHECK = (
    '{"kind": "recheck", "settings_key": "' + KEY + '", "environment_fingerprint": "6d7a42f174d2d14d", '
    '"symbol": "AMD", "settings": "default fp32 num_threads=1", "series_digest": "d1", '
    '"broken": ["drift 2% above 1%"], "drift": 0.02, "quantile_shift": 0.0, "drift_budget": 0.01, '
    '"failed": null}'
)
"""A recheck leaves its times to the columns of the table."""


def unreadable(labels: Mapping[str, Any]) -> dict[str, str]:
    """Payloads by what is wrong with them, otherwise of ``labels``."""
    window = json.loads(WINDOW) | labels
    recheck = json.loads(RECHECK) | labels
    quarantine = json.loads(QUARANTINE) | labels
    huge = 10**399
    return {
        "a window without calls": json.dumps({k: v for k, v in window.items() if k != "calls"}),
        "a window without recompiles": json.dumps({k: v for k, v in window.items() if k != "recompiles"}),
        "text for a number": json.dumps(window | {"recompiles": "many"}),
        "true for a number": json.dumps(window | {"limit_hits": True}),
        "400 digits": json.dumps(window | {"calls": huge, "buckets": {"57": huge}}),
        "400 digits of time": json.dumps(window | {"longest_ms": huge}),
        "a bucket beyond": json.dumps(window | {"calls": 1, "buckets": {"192": 1}}),
        "buckets in a list": json.dumps(window | {"buckets": [1]}),
        "no reason": json.dumps({k: v for k, v in quarantine.items() if k != "reason"}),
        "a number for a reason": json.dumps(quarantine | {"reason": 5}),
        "no broken limits": json.dumps({k: v for k, v in recheck.items() if k != "broken"}),
        "null for broken limits": json.dumps(recheck | {"broken": None}),
        "a recheck without failed": json.dumps({k: v for k, v in recheck.items() if k != "failed"}),
        "another kind": json.dumps(window | {"kind": "other"}),
        "a list for a kind": json.dumps(window | {"kind": []}),
        "a list": "[]",
        "no JSON": "{",
        "deep nesting": '{"kind": "telemetry", "a": ' + "[" * 100_000 + "]" * 100_000 + "}",
        "5000 digits": '{"kind": "telemetry", "a": ' + "9" * 5000 + "}",
    }


def insert(store: str, payload: str, *, symbol: str, settings_key: str, at: datetime) -> None:
    """A row of the telemetry table of the file ``store``, past every check."""
    moment = at.astimezone(UTC).isoformat(timespec="microseconds")
    with closing(sqlite3.connect(store)) as connection, connection:
        connection.execute(
            "INSERT INTO telemetry (symbol, settings_key, window_start, window_end, payload_json) "
            "VALUES (?, ?, ?, ?, ?)",
            (symbol, settings_key, moment, moment, payload),
        )
