from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotuner.errors import AutotuneError
from autotuner.measurement.outcome import ArmLaunch, Failed, Measured
from autotuner.measurement.recorded import Recorded, ReplayTable, seed_table
from autotuner.measurement.replay import ReplayRunner, TimingNoise
from toto_core.settings import RuntimeSettings

SEED_RESULTS = Path(__file__).parents[1] / "data" / "seed" / "results.csv"
EAGER = RuntimeSettings()
DEFAULT = RuntimeSettings(compile_mode="default")
TUNED = RuntimeSettings(compile_mode="max-autotune")


def recorded(latency_ms: float, sigma_ms: float = 0.0, cost_s: float = 0.0) -> Recorded:
    return Recorded(latency_ms=(latency_ms,), sigma_ms=(sigma_ms,), cost_s=cost_s)


def table(**entries: Recorded) -> ReplayTable:
    by_name = {"eager": EAGER, "default": DEFAULT, "tuned": TUNED}
    return ReplayTable(
        entries={EAGER: recorded(100.0, 5.0)} | {by_name[name]: entry for name, entry in entries.items()},
        reference=EAGER,
    )


def measure(runner: ReplayRunner, asked: RuntimeSettings) -> Measured:
    outcome = runner.measure(asked, seconds=1e9)
    assert isinstance(outcome, Measured)
    return outcome


def arm(runner: ReplayRunner, asked: RuntimeSettings, blocks: int = 20) -> ArmLaunch:
    found = runner.launch([asked], blocks=blocks, seconds=1e9).arm(asked)
    assert isinstance(found, ArmLaunch)
    return found


def test_without_noise_the_recorded_numbers_come_back_exactly() -> None:
    entry = Recorded(
        latency_ms=(52.5, 7.0),
        sigma_ms=(282.8, 0.0),
        start_ms=900.0,
        drift=0.01,
        quantile_shift=0.02,
        mae=3.0,
        mae_reference=2.0,
        sigma_mae=0.5,
        peak_bytes=7,
    )
    reference = Recorded(latency_ms=(100.0, 10.0), sigma_ms=(1.0, 1.0), start_ms=5.0)
    both = ReplayTable(entries={EAGER: reference, TUNED: entry}, reference=EAGER)
    outcome = measure(ReplayRunner(both, TimingNoise.none()), TUNED)

    assert [(t.p50_ms, t.sigma_ms) for t in outcome.timings] == [(52.5, 282.8), (7.0, 0.0)]
    assert [(t.p50_ms, t.sigma_ms) for t in outcome.reference_timings] == [(100.0, 1.0), (10.0, 1.0)]
    assert (outcome.cold_start_ms, outcome.reference_cold_start_ms, outcome.peak_bytes) == (900.0, 5.0, 7)
    accuracy = outcome.accuracy
    assert (accuracy.drift, accuracy.quantile_shift, accuracy.sigma_mae) == (0.01, 0.02, 0.5)
    assert (accuracy.mae, accuracy.mae_reference) == (3.0, 2.0)
    assert outcome.report.really_compiled


def test_a_start_says_whether_it_was_warm_and_only_an_empty_cache_gives_a_cold_one() -> None:
    entry = replace(recorded(50.0), start_ms=900.0)
    runner = ReplayRunner(table(default=entry, tuned=replace(entry, was_warm=True)), TimingNoise.none())
    first, again, recorded_warm, eager = (
        runner.measure(settings, seconds=1e9, again=again)
        for settings, again in ((DEFAULT, False), (DEFAULT, True), (TUNED, False), (EAGER, True))
    )

    starts = [
        (each.start_ms, each.was_warm, each.cold_start_ms)
        for each in (first, again, recorded_warm, eager)
        if isinstance(each, Measured)
    ]
    assert starts == [(900.0, False, 900.0), (900.0, True, None), (900.0, True, None), (0.0, False, 0.0)]
    assert [arm(runner, settings).was_warm for settings in (DEFAULT, EAGER)] == [True, False]


@given(st.floats(1e-3, 1e5), st.floats(0, 1e5), st.integers(1, 30))
def test_raw_blocks_without_noise_have_the_recorded_median_and_deviation(
    latency: float, sigma: float, blocks: int
) -> None:
    runner = ReplayRunner(table(default=recorded(latency, sigma)), TimingNoise.none())
    calls = np.asarray(arm(runner, DEFAULT, blocks).blocks)

    assert calls.shape == (1, blocks, 4)
    assert (calls > 0).all()
    assert np.median(calls) == latency
    assert np.std(calls, ddof=1) == pytest.approx(sigma, rel=1e-6, abs=1e-9 * latency)


def test_a_huge_deviation_leaves_every_call_positive() -> None:
    calls = np.asarray(
        arm(ReplayRunner(table(tuned=recorded(52.5, 282.8)), TimingNoise.none()), TUNED).blocks
    )

    assert calls.min() == 52.5
    assert np.std(calls, ddof=1) == pytest.approx(282.8)


def test_without_noise_the_ratio_is_certain() -> None:
    ratio = measure(ReplayRunner(table(default=recorded(50.0, 3.0)), TimingNoise.none()), DEFAULT).ratio

    assert (ratio.low, ratio.estimate, ratio.high) == pytest.approx((2.0, 2.0, 2.0))


def test_noise_scatters_calls_around_the_recorded_latency() -> None:
    runner = ReplayRunner(table(default=recorded(50.0)), TimingNoise(seed=1, launch=0.0, disturbed=0.0))
    calls = np.asarray(arm(runner, DEFAULT, blocks=2_000).blocks).ravel()
    logs = np.log(calls / 50.0)

    assert np.median(calls) == pytest.approx(50.0, rel=0.01)
    assert logs.std() == pytest.approx(0.10, rel=0.05)
    assert np.corrcoef(logs[:-1], logs[1:])[0, 1] == pytest.approx(0.3, abs=0.05)


def test_a_recorded_deviation_adds_to_the_noise() -> None:
    runner = ReplayRunner(
        table(default=recorded(50.0, 10.0)), TimingNoise(per_call=0.0, launch=0.0, disturbed=0.0)
    )
    calls = np.asarray(arm(runner, DEFAULT, blocks=2_000).blocks)

    assert np.std(np.log(calls)) == pytest.approx(np.sqrt(np.log1p(0.04)), rel=0.05)


def test_launches_of_one_settings_differ_by_the_launch_effect() -> None:
    quiet = ReplayTable(entries={EAGER: recorded(100.0)}, reference=EAGER)
    runner = ReplayRunner(quiet, TimingNoise(per_call=0.0, disturbed=0.0, launch=0.02))
    medians = [float(np.median(arm(runner, EAGER, blocks=2).blocks)) for _ in range(400)]

    assert np.std(np.log(medians)) == pytest.approx(0.02, rel=0.15)


def test_disturbed_blocks_are_slower_and_counted() -> None:
    quiet = ReplayTable(entries={EAGER: recorded(100.0)}, reference=EAGER)
    runner = ReplayRunner(quiet, TimingNoise(per_call=0.0, launch=0.0, disturbed=0.05, seed=3))
    launch = runner.launch([EAGER], blocks=1_000, seconds=1e9)
    found = launch.arms[0]
    assert isinstance(found, ArmLaunch)
    per_block = np.asarray(found.blocks)[0, :, 0] / 100.0
    slow = per_block > 1.0

    assert launch.conditions.disturbed_blocks == slow.sum()
    assert 0.03 < slow.mean() < 0.07
    assert (per_block[slow] >= 1.5).all()
    assert (per_block[slow] <= 3.0).all()


def test_the_same_seed_gives_the_same_answers_whatever_else_was_asked() -> None:
    entries = table(default=recorded(50.0), tuned=recorded(40.0))
    first, second = ReplayRunner(entries, TimingNoise(seed=5)), ReplayRunner(entries, TimingNoise(seed=5))
    second.measure(TUNED, seconds=1e9)

    assert first.measure(DEFAULT, seconds=1e9) == second.measure(DEFAULT, seconds=1e9)
    assert first.measure(DEFAULT, seconds=1e9) != ReplayRunner(entries, TimingNoise(seed=6)).measure(
        DEFAULT, seconds=1e9
    )


def test_asking_again_is_another_measurement() -> None:
    runner = ReplayRunner(table(default=recorded(50.0)))

    assert runner.measure(DEFAULT, seconds=1e9) != runner.measure(DEFAULT, seconds=1e9)


def test_unknown_settings_crash_as_an_outcome() -> None:
    runner = ReplayRunner(table())

    assert runner.measure(TUNED, seconds=1.0) == Failed(
        kind="crashed", detail="max-autotune fp32: not in the recorded table"
    )


def test_recorded_failures_come_back() -> None:
    broken = Recorded(latency_ms=(1.0,), sigma_ms=(0.0,), failure=Failed(kind="out_of_memory"))
    runner = ReplayRunner(table(tuned=broken))
    launch = runner.launch([TUNED, EAGER], blocks=3, seconds=1.0)

    assert runner.measure(TUNED, seconds=1.0) == Failed(kind="out_of_memory")
    assert isinstance(launch.arm(TUNED), Failed)
    assert isinstance(launch.arm(EAGER), ArmLaunch)
    assert launch.conditions.blocks == 3


def test_the_clock_moves_by_recorded_costs_and_no_further_than_allowed() -> None:
    runner = ReplayRunner(table(default=recorded(50.0, cost_s=30.0), tuned=recorded(40.0, cost_s=90.0)))
    runner.measure(DEFAULT, seconds=60.0)
    assert runner.clock() == 30.0

    late = runner.measure(TUNED, seconds=60.0)
    assert isinstance(late, Failed)
    assert late.kind == "timeout"
    assert runner.clock() == 90.0

    launch = runner.launch([DEFAULT, TUNED], blocks=5, seconds=500.0)
    assert all(isinstance(found, ArmLaunch) for found in launch.arms)
    assert runner.clock() == 210.0


@pytest.mark.parametrize(("latency", "sigma"), [((), ()), ((1.0,), ()), ((0.0,), (0.0,)), ((1.0,), (-1.0,))])
def test_impossible_records_are_refused(latency: tuple[float, ...], sigma: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="recorded:"):
        Recorded(latency_ms=latency, sigma_ms=sigma)


def test_a_table_without_its_reference_or_of_uneven_shapes_is_refused() -> None:
    with pytest.raises(ValueError, match=r"the reference .* has no measurement"):
        ReplayTable(entries={DEFAULT: recorded(1.0)}, reference=EAGER)
    uneven = {EAGER: recorded(1.0), DEFAULT: Recorded(latency_ms=(1.0, 2.0), sigma_ms=(0.0, 0.0))}
    with pytest.raises(ValueError, match="same number of request shapes"):
        ReplayTable(entries=uneven, reference=EAGER)


@pytest.mark.parametrize(
    "wrong", [{"per_call": -0.1}, {"launch": -0.1}, {"autocorrelation": 1.0}, {"disturbed": 1.1}]
)
def test_impossible_noise_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="noise:"):
        TimingNoise(**wrong)  # type: ignore[arg-type]


def test_the_seed_table_takes_drift_beyond_sampling_noise_over_price() -> None:
    found = seed_table(SEED_RESULTS, "ETHUSD").entries

    assert found[DEFAULT].drift == pytest.approx((255 - 1.96 * 50) / 4126)
    assert seed_table(SEED_RESULTS, "BTCUSD").entries[DEFAULT].drift == 0.0
    assert found[EAGER].drift == 0.0
    assert found[EAGER].sigma_ms == found[DEFAULT].sigma_ms == (7.0,)
    assert {entry.start_ms for entry in found.values()} == {0.0}
    assert len(found) == 4


def test_the_seed_table_is_read_from_text_as_from_a_file() -> None:
    text = SEED_RESULTS.read_text(encoding="utf-8")

    assert seed_table(text, "AMD") == seed_table(SEED_RESULTS, "AMD")


HEADER = "symbol,compile_mode,latency_ms,sigma_time_ms,sigma_mae,mae_difference,price_level\n"
REFERENCE_ROW = "AMD,eager,1,,,,2\n"
DEFAULT_ROW = "AMD,default,1,1,1,1,2\n"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "the columns must be symbol,compile_mode"),
        ("symbol,compile_mode\nAMD,eager\n", "the columns must be symbol,compile_mode"),
        (HEADER + "GOOGL,eager,1,,,,2\nGOOGL,default,1,1,1,1,2\n", "needs a row for eager"),
        (HEADER + REFERENCE_ROW, "needs a row for eager"),
        (HEADER + DEFAULT_ROW + "AMD,eager,x,,,,2\n", "could not convert"),
        (HEADER + REFERENCE_ROW + "AMD,default,1,,1,1,2\n", "could not convert"),
        (HEADER + DEFAULT_ROW + "AMD,eager,1\n", "could not convert"),
        (HEADER + DEFAULT_ROW + "AMD,eager,inf,,,,2\n", "latency_ms must be a finite number"),
        (HEADER + DEFAULT_ROW + "AMD,eager,-1,,,,2\n", "recorded: latency_ms must be above 0"),
        (HEADER + REFERENCE_ROW + "AMD,default,1,1,1,1,0\n", "price_level must be above 0"),
        (HEADER + REFERENCE_ROW + DEFAULT_ROW + "AMD,fast,1,1,1,1,2\n", "settings: compile_mode"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises(AutotuneError, match=f"recorded table: AMD: {reason}"):
        seed_table(text, "AMD")


def test_a_table_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AutotuneError, match=r"recorded table: AMD: .*No such file"):
        seed_table(tmp_path / "none.csv", "AMD")


@settings(max_examples=100)
@given(st.text(max_size=100), st.sampled_from(("", HEADER, HEADER + REFERENCE_ROW + "AMD,default,1,1,1,1")))
def test_any_text_is_a_table_or_a_refusal(text: str, start: str) -> None:
    with contextlib.suppress(AutotuneError):
        assert seed_table(start + text, "AMD").entries.keys() >= {EAGER, DEFAULT}
