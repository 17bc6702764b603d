from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from toto_core.model_files import WEIGHTS_FILE, digest, locate
from toto_core.pipeline import TotoPipeline
from toto_core.series import PriceSeries, available_symbols, find_series
from toto_core.settings import RuntimeSettings
from toto_core.toto1 import checkpoint
from toto_core.toto1.model import TotoModel
from toto_core.training.__main__ import main, train
from toto_core.training.card import CARD_FILE, TrainingRecord, Weights, card
from toto_core.training.data import TRAIN_END, synthetic_walk, training_batch
from toto_core.training.fit import MINI, Plan, fit, next_patch_loss
from toto_core.training.held_out import HORIZONS, average_ratio, held_out_scores, season_of
from toto_core.training.scoring import Score, score

# The plan of a real training in small, with a learning rate that shows within its few steps of warm-up.
SMALL = Plan(steps=6, batch=4, context=64, learning_rate=0.02, check_every=3)


@pytest.fixture(scope="module")
def series() -> dict[str, PriceSeries]:
    return {symbol: find_series(symbol, None) for symbol in available_symbols(None)}


@pytest.fixture(scope="module")
def two(series: dict[str, PriceSeries]) -> dict[str, NDArray[np.float64]]:
    return {symbol: series[symbol].close for symbol in ("AMD", "GOOGL")}


def a_score(symbol: str = "AMD", horizon: int = 8, model: float = 1.5, last_value: float = 1.0) -> Score:
    return Score(
        symbol=symbol, horizon=horizon, windows=200, model=model, last_value=last_value, seasonal=3.25
    )


def test_a_few_steps_lower_the_loss_and_repeat_exactly(two: dict[str, NDArray[np.float64]]) -> None:
    lines: list[str] = []
    first, again = fit(two, SMALL, lines.append), fit(two, SMALL, lines.append)
    torch.manual_seed(SMALL.seed)
    untrained = TotoModel(MINI)

    start, trained, repeated = (model.state_dict() for model in (untrained, first, again))
    assert all(torch.equal(trained[name], repeated[name]) for name in trained)
    assert sum(not torch.equal(trained[name], start[name]) for name in trained) > len(trained) // 2

    windows = training_batch(two, np.random.default_rng(1), size=16, length=96, real_share=0.5)
    fixed = torch.from_numpy(windows).unsqueeze(1)
    with torch.no_grad():
        before, after = (float(next_patch_loss(model, fixed)) for model in (untrained, first))
    assert after < before - 0.05
    assert [line.split(":")[0] for line in lines] == ["step 3", "step 6"] * 2


def test_another_seed_trains_another_model(two: dict[str, NDArray[np.float64]]) -> None:
    plans = (Plan(steps=1, batch=2, context=64, seed=seed) for seed in (1, 2))
    one, other = (fit(two, plan, lambda _: None).state_dict() for plan in plans)
    assert not torch.equal(one["unembed.weight"], other["unembed.weight"])


def test_training_never_sees_what_comes_after_the_first_three_fifths(
    two: dict[str, NDArray[np.float64]],
) -> None:
    hidden = {symbol: prices.copy() for symbol, prices in two.items()}
    for prices in hidden.values():
        prices[int(len(prices) * TRAIN_END) :] = np.nan
    seen, complete = (
        training_batch(prices, np.random.default_rng(4), size=64, length=128, real_share=1.0)
        for prices in (hidden, two)
    )
    assert np.isfinite(seen).all()
    assert np.array_equal(seen, complete)


def test_a_batch_holds_as_many_real_windows_as_asked() -> None:
    rng = np.random.default_rng(2)
    flat = {"FLAT": np.full(1000, 7.0)}
    batch = training_batch(flat, rng, size=10, length=64, real_share=0.3)
    assert batch.shape == (10, 64)
    assert batch.dtype == np.float32
    assert [bool(np.ptp(window) == 0.0) for window in batch] == [True] * 3 + [False] * 7
    assert (batch > 0.0).all()


def test_synthetic_walks_are_seeded_and_positive() -> None:
    first, again = (synthetic_walk(np.random.default_rng(6), 300) for _ in range(2))
    assert np.array_equal(first, again)
    assert np.isfinite(first).all()
    assert (first > 0.0).all()


def test_training_writes_a_model_that_loads_and_its_record(
    series: dict[str, PriceSeries], tmp_path: Path
) -> None:
    plan = Plan(steps=2, batch=2, context=64, check_every=2, seed=3)
    train(tmp_path / "new", plan, {symbol: series[symbol] for symbol in ("AMD", "GOOGL")})

    forecast = TotoPipeline.from_pretrained(str(tmp_path / "new")).predict(series["AMD"].close[-64:], 8, 4)
    assert forecast[0].shape == (4, 8)
    record = TrainingRecord.read(tmp_path / "new")
    assert record is not None
    assert (record.steps, record.seed, record.threads) == (2, 3, torch.get_num_threads())
    assert record.seconds > 0.0


def test_scored_windows_lie_in_the_last_fifth(series: dict[str, PriceSeries]) -> None:
    for one in series.values():
        for horizon in HORIZONS:
            # a price that is its own index tells which steps were asked for
            seen: list[NDArray[np.float32]] = []

            def median(contexts: NDArray[np.float32], steps: int) -> NDArray[np.float64]:
                seen.append(contexts)  # noqa: B023 - called before the loop goes on
                return np.repeat(contexts[:, -1:], steps, axis=1).astype(np.float64)

            result = score(
                one.symbol,
                np.arange(len(one), dtype=np.float64),
                median,
                start=one.last_fifth_start(),
                stop=len(one),
                horizon=horizon,
                context=512,
                windows=200,
                season=5,
            )
            origins = seen[0][:, -1].astype(int) + 1
            assert origins.min() >= len(one) * 4 // 5
            assert origins.max() + horizon == len(one)
            assert result.windows == len(origins) == len(set(origins)) == 200
            assert np.ptp(np.diff(origins)) <= 1
            assert result.ratio == 1.0
            assert result.last_value == pytest.approx((horizon + 1) / 2.0)


def test_the_seasonal_forecast_is_right_on_a_series_that_repeats() -> None:
    prices = np.tile([3.0, 1.0, 4.0, 1.5, 9.0], 200)
    result = score(
        "AMD",
        prices,
        lambda contexts, steps: np.zeros((len(contexts), steps)),
        start=800,
        stop=1000,
        horizon=12,
        context=64,
        windows=50,
        season=5,
    )
    assert result.seasonal == 0.0
    assert result.model == pytest.approx(prices.mean(), rel=0.1)


def test_a_share_that_is_too_short_is_refused() -> None:
    with pytest.raises(ValueError, match="AMD: no room for 64 steps"):
        score(
            "AMD",
            np.ones(100),
            lambda contexts, steps: np.zeros((len(contexts), steps)),
            start=80,
            stop=100,
            horizon=64,
            context=20,
            windows=5,
            season=5,
        )


def test_stocks_have_weeks_and_crypto_has_days(series: dict[str, PriceSeries]) -> None:
    seasons = {symbol: season_of(one) for symbol, one in series.items()}
    assert seasons == {"AAPL": 5, "AMD": 5, "BTCUSD": 24, "ETHUSD": 24, "GOOGL": 5}


@pytest.mark.slow
def test_the_shipped_weights_are_about_as_good_as_the_last_value(series: dict[str, PriceSeries]) -> None:
    pipeline = TotoPipeline.from_pretrained("toto-mini", settings=RuntimeSettings(series_per_batch=25))
    scores = held_out_scores(pipeline, series.values(), horizons=(8,))

    assert {one.symbol for one in scores} == set(series)
    assert all(one.windows == 200 for one in scores)
    assert average_ratio(scores, 8) <= 1.03
    assert max(one.ratio for one in scores) <= 1.06
    assert all(one.model < one.seasonal for one in scores)


def test_the_shipped_card_is_of_the_shipped_weights() -> None:
    folder = locate("toto-mini")
    text = (folder / CARD_FILE).read_text(encoding="utf-8")
    model = checkpoint.load(locate("toto-mini"))
    assert model.config == MINI
    assert digest(folder) in text
    assert f"{sum(parameter.numel() for parameter in model.parameters()):,}" in text
    assert f"{(folder / WEIGHTS_FILE).stat().st_size:,} bytes" in text
    record = TrainingRecord.read(folder)
    assert record is not None
    assert (record.steps, record.seed) == (Plan().steps, Plan().seed) == (2500, 20)
    assert "2,500 steps, seed 20" in text


def test_a_card_tells_every_score_and_the_averages(series: dict[str, PriceSeries]) -> None:
    scores = [a_score(horizon=horizon) for horizon in HORIZONS] + [a_score("BTCUSD", 8, 1.25)]
    weights = Weights(config=MINI, parameters=1234567, bytes=7654321, digest="ab" * 32)
    text = card(weights, None, {"AMD": series["AMD"]}, scores)
    assert "| AMD | 8 | 200 | 1.500 | 1.000 | 3.250 | 1.500 |" in text
    assert "| BTCUSD | 8 | 200 | 1.250 | 1.000 | 3.250 | 1.250 |" in text
    assert "1.375 at horizon 8" in text
    assert "1,234,567" in text
    assert "7,654,321 bytes" in text
    assert "| AMD | 4,529 | 2005-01-03 … 2022-12-28 | 2019-05-28 |" in text
    assert "The run left no record." in text
    assert "not for trading" in text


def test_a_damaged_record_counts_as_none(tmp_path: Path) -> None:
    assert TrainingRecord.read(tmp_path) is None
    record = TrainingRecord(steps=5, seed=1, threads=2, seconds=3.5, torch="2.13.0")
    record.write(tmp_path)
    assert TrainingRecord.read(tmp_path) == record
    for content in (
        "{",
        "[]",
        '{"steps": 5}',
        '{"steps": 0, "seed": 1, "threads": 1, "seconds": 1, "torch": ""}',
    ):
        (tmp_path / "training.json").write_text(content, encoding="utf-8")
        assert TrainingRecord.read(tmp_path) is None


def test_a_folder_without_a_model_is_refused_with_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    threads = torch.get_num_threads()
    try:
        assert main(["--score", str(tmp_path)]) == 1
    finally:
        torch.set_num_threads(threads)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == f"{tmp_path}: has no config.json; give a folder in the official layout\n"


def test_training_and_scoring_in_one_go_cannot_be_asked_for() -> None:
    with pytest.raises(SystemExit):
        main(["--score", "a", "--out", "b"])
