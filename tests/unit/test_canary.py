from __future__ import annotations

from dataclasses import replace

import pytest

from autotuner.daemon.take_back import CANARY_WINDOWS, judge
from autotuner.daemon.triggers import LiveWindow
from autotuner.figures import Figures, figures_from_json
from autotuner.serving.canary import Canary, previous_of
from toto_core.settings import RuntimeSettings

OLD = RuntimeSettings(compile_mode="default", num_threads=1)
WINDOW = LiveWindow(calls=100, p50_ms=10.0, p99_ms=20.0)


def promised(share: float) -> str:
    return Figures(p50_ms=2.0, canary=Canary(share=share, previous=OLD)).to_json()


def test_about_the_share_of_processes_gets_the_canary() -> None:
    staying = [previous_of(promised(0.25), "AMD", f"process {number}") for number in range(2000)]

    assert set(staying) == {None, OLD}
    assert 0.21 < staying.count(None) / len(staying) < 0.29


def test_a_process_always_gets_the_same_and_another_symbol_its_own_lot() -> None:
    assert previous_of(promised(0.5), "AMD") == previous_of(promised(0.5), "AMD")
    lots = {symbol: previous_of(promised(0.5), symbol, "one process") for symbol in map(str, range(50))}
    assert set(lots.values()) == {None, OLD}


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        '{"canary": {"share": ' + "9" * 400 + ', "previous": {}}}',
        '{"canary": {"share": NaN, "previous": {}}}',
        '{"canary": ' + "[" * 5000 + "]" * 5000 + "}",
        '{"canary": 1}',
        '{"canary": {"share": "x", "previous": {}}}',
        '{"canary"',
        "[]",
        '"canary"',
    ],
)
def test_what_cannot_be_read_is_no_canary(text: str) -> None:
    assert previous_of(text, "AMD") is None


def test_the_ledger_says_what_ran_before() -> None:
    assert figures_from_json(promised(0.9)).canary == Canary(share=0.9, previous=OLD)
    assert figures_from_json("{}").canary is None


def test_a_canary_waits_until_both_sides_were_seen_enough() -> None:
    few = [WINDOW] * (CANARY_WINDOWS - 1)

    assert judge(few, [WINDOW] * 9).verdict == "wait"
    assert judge([WINDOW] * 9, few).verdict == "wait"
    assert judge([replace(WINDOW, calls=3)] * 9, [WINDOW] * 9).verdict == "wait"


@pytest.mark.parametrize(
    ("p50_ms", "p99_ms", "verdict"),
    [(5.0, 20.0, "confirm"), (10.4, 20.0, "confirm"), (10.6, 20.0, "roll back"), (5.0, 41.0, "roll back")],
)
def test_a_canary_is_confirmed_unless_calls_take_longer_than_before(
    p50_ms: float, p99_ms: float, verdict: str
) -> None:
    found = judge([LiveWindow(calls=100, p50_ms=p50_ms, p99_ms=p99_ms)] * 5, [WINDOW] * 5)

    assert found.verdict == verdict
    assert "over 5 windows" in found.text


def test_a_few_bad_minutes_decide_nothing() -> None:
    bad = replace(WINDOW, p50_ms=1000.0)

    assert judge([WINDOW] * 8 + [bad] * 3, [WINDOW] * 8).verdict == "confirm"
