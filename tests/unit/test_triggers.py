from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotuner.daemon.take_back import PROBATION, why_roll_back
from autotuner.daemon.triggers import LiveWindow, Reason, Situation, reasons, shifted
from autotuner.environment import current_environment
from autotuner.figures import Figures
from autotuner.serving.failures import Failures
from autotuner.store import Promotion
from autotuner.workload import Workload
from toto_core.settings import RuntimeSettings

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
PROMOTION = Promotion(
    symbol="AMD",
    profile="production",
    workload=Workload(),
    environment=current_environment(),
    settings=RuntimeSettings(compile_mode="default"),
    verdict="first",
    reason="it takes less time",
    figures=Figures(),
    promoted_at=NOW - timedelta(hours=2),
)
FINE = LiveWindow(calls=100, p50_ms=1.0, p99_ms=2.0)
QUIET = Situation(
    promotion=PROMOTION,
    environment=current_environment(),
    now=NOW,
    promised_p50_ms=1.0,
    promised_p99_ms=2.0,
    windows=(FINE,) * 10,
    bucket=1024,
    promoted_bucket=1024,
)


ALONE = Failures(reasons=("no g++",), processes=1, newest=NOW - timedelta(hours=1))
FAILED = replace(ALONE, reasons=("out of memory", "no g++"), processes=2)


def kinds(situation: Situation) -> list[str]:
    return [reason.kind for reason in reasons(situation)]


def test_a_symbol_about_which_nothing_changed_is_left_alone() -> None:
    assert kinds(QUIET) == []


@pytest.mark.parametrize(
    ("changes", "kind", "text"),
    [
        ({"promotion": None}, "never tuned", "never tuned"),
        ({"environment": replace(current_environment(), torch="9.9")}, "environment", "torch: "),
        ({"failures": FAILED}, "quarantine", "failed in production 2 times: no g++"),
        ({"failures": ALONE}, "quarantine", "one process alone says so"),
        ({"windows": (FINE, replace(FINE, recompiles=1))}, "recompiles", "1 recompiles"),
        ({"windows": (FINE, replace(FINE, limit_hits=1))}, "recompiles", "1 limit hits"),
        ({"windows": (FINE, replace(FINE, eager_calls=3))}, "recompiles", "3 eager calls"),
        ({"windows": (replace(FINE, p50_ms=1.6),) * 5}, "latency", "live p50 of 1.6 ms"),
        ({"windows": (replace(FINE, p99_ms=4.0),) * 5}, "latency", "live p99 of 4 ms"),
        ({"broken": ("drift 2% above 1%",)}, "drift", "on fresh prices: drift 2% above 1%"),
        ({"model_changed": "weights a, now b"}, "model", "weights a"),
        ({"bucket": 2048}, "series", "2,048 points"),
        ({"workload_shifted": "30% of calls"}, "workload", "30% of calls"),
        ({"promotion": replace(PROMOTION, promoted_at=NOW - timedelta(days=7))}, "age", "7 days ago"),
    ],
)
def test_every_trigger_fires_for_its_reason_and_no_other(
    changes: dict[str, object], kind: str, text: str
) -> None:
    found = reasons(replace(QUIET, **changes))  # type: ignore[arg-type]

    assert [reason.kind for reason in found] == [kind]
    assert text in found[0].text


def test_a_run_that_found_nothing_better_makes_an_old_promotion_young_again() -> None:
    old = replace(QUIET, promotion=replace(PROMOTION, promoted_at=NOW - timedelta(days=30)))

    assert kinds(old) == ["age"]
    assert kinds(replace(old, tuned_at=NOW - timedelta(days=6))) == []
    assert kinds(replace(old, tuned_at=NOW - timedelta(days=7))) == ["age"]


def test_one_bad_window_is_no_shift_however_bad() -> None:
    assert kinds(replace(QUIET, windows=(FINE, replace(FINE, p50_ms=1000.0), FINE, FINE))) == []


def test_windows_of_a_handful_of_calls_do_not_count() -> None:
    assert kinds(replace(QUIET, windows=(replace(FINE, p50_ms=9.0, calls=3),) * 20)) == []


def test_a_shorter_series_is_no_reason() -> None:
    assert kinds(replace(QUIET, bucket=512)) == []


@given(st.lists(st.floats(0.5, 1.1), max_size=200))
def test_live_times_within_the_slack_are_never_a_shift(ratios: list[float]) -> None:
    assert not shifted(ratios)


@given(st.floats(1.4, 100.0), st.lists(st.floats(0.8, 1.1), max_size=50))
def test_a_lasting_shift_is_seen_within_a_few_windows(factor: float, before: list[float]) -> None:
    assert shifted([*before, *[factor] * 5])
    assert not shifted([*before, factor])


@given(st.floats(1.4, 100.0), st.integers(1, 100))
def test_a_shift_that_has_passed_is_forgotten(factor: float, windows: int) -> None:
    assert not shifted([*[factor] * windows, 1.0, 1.0])


def test_what_one_process_alone_says_is_answered_by_a_run_and_taken_up_again_when_it_is_said_again() -> None:
    looked_at = replace(QUIET, failures=ALONE, tuned_at=NOW - timedelta(minutes=30))

    assert kinds(looked_at) == []
    assert kinds(replace(looked_at, tuned_at=NOW - timedelta(minutes=90))) == ["quarantine"]
    assert kinds(replace(looked_at, failures=FAILED)) == ["quarantine"]


def test_only_what_more_than_one_source_says_is_proven() -> None:
    (alone,), (failed,) = (reasons(replace(QUIET, failures=each)) for each in (ALONE, FAILED))

    assert (alone.proven, failed.proven) == (False, True)
    assert why_roll_back(PROMOTION, [alone], now=NOW, has_previous=True) is None
    assert why_roll_back(PROMOTION, [alone, failed], now=NOW, has_previous=True) == failed.text


LATENCY, QUARANTINE = Reason(kind="latency", text="slow"), Reason(kind="quarantine", text="no g++")


@pytest.mark.parametrize(
    ("reason", "age", "has_previous", "expected"),
    [
        (LATENCY, timedelta(hours=1), True, "slow"),
        (LATENCY, timedelta(hours=1), False, None),
        (LATENCY, PROBATION, True, None),
        (QUARANTINE, timedelta(days=30), False, "no g++"),
        (Reason(kind="age", text="old"), timedelta(hours=1), True, None),
    ],
)
def test_what_fails_goes_at_once_and_what_is_slow_goes_while_on_probation(
    reason: Reason,
    age: timedelta,
    has_previous: bool,
    expected: str | None,
) -> None:
    promotion = replace(PROMOTION, promoted_at=NOW - age)

    assert why_roll_back(promotion, [reason], now=NOW, has_previous=has_previous) == expected
