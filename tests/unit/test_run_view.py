from __future__ import annotations

from typing import Any

from autotuner.report.run_view import run_lines
from toto_core.settings import RuntimeSettings

COMPILED = RuntimeSettings(compile_mode="default", freezing=True)


def document(**changes: Any) -> dict[str, Any]:
    return {
        "symbol": "AMD",
        "workload": {"calls_per_process": 10_000},
        "settings": RuntimeSettings().to_dict(),
        "stage": "duel",
        "launches": 5,
        "ratio": {"estimate": 1.0, "low": 1.0, "high": 1.0},
        "p50_ms": 4.0,
        "p95_ms": 5.0,
        "sigma_time_ms": 0.5,
        "trials": {
            "measured": 4,
            "failed": {"timeout": 1},
            "reused": 0,
            "distinct_keys": 20,
            "ended_because": "seconds",
        },
        "decision": {"verdict": "first", "reason": "Nothing was proven faster."},
        "promoted": True,
        "fastest_once_running": {
            "settings": COMPILED.to_dict(),
            "ratio": {"estimate": 1.5, "low": 1.4, "high": 1.6},
            "start_ms": 15_000.0,
            "break_even_calls": 12_345,
        },
        **changes,
    }


def test_what_would_be_faster_in_a_longer_lived_process_is_said() -> None:
    text = "\n".join(run_lines(document()))
    assert "AMD now runs eager fp32" in text
    assert "default fp32 freezing=True, 1.50x [1.40, 1.60]" in text
    assert "after 12,345 calls" in text


def test_nothing_is_added_when_the_fastest_is_what_was_chosen() -> None:
    text = "\n".join(run_lines(document(settings=COMPILED.to_dict(), promoted=False)))
    assert "AMD still runs default fp32 freezing=True" in text
    assert "fastest once running" not in text
