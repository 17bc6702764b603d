from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from autotuner.cli import cli
from autotuner.environment import current_environment
from autotuner.figures import Figures
from autotuner.report.forecast_view import ASCII, BLOCKS, ForecastView, bar, decimals, sparkline
from autotuner.store import Promotion, Store
from autotuner.workload import RequestShape, Workload
from toto_core.pipeline import TotoPipeline
from toto_core.series import find_series
from toto_core.settings import RuntimeSettings

BF16 = RuntimeSettings(precision="bf16")
SMALL = Workload(shapes=(RequestShape(context_length=128, prediction_length=5, num_samples=32),))


@pytest.fixture
def db(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    for name in ("AUTOTUNE_DB", "TOTO_DISABLE_COMPILE", "TOTO_COMPILE_MODE", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))
    return str(tmp_path / "store.db")


def run(db: str, *arguments: str, columns: int = 100) -> Result:
    return CliRunner().invoke(
        cli, ["forecast", "--db", db, *arguments], prog_name="autotune", env={"COLUMNS": str(columns)}
    )


def document(result: Result) -> dict[str, Any]:
    assert result.exit_code == 0, result.output
    parsed: dict[str, Any] = json.loads(result.stdout)
    return parsed


def promote(db: str, workload: Workload, settings: RuntimeSettings) -> None:
    with Store(db) as store:
        store.promote(
            Promotion(
                symbol="AMD",
                profile="production",
                workload=workload,
                environment=current_environment("cpu"),
                settings=settings,
                verdict="first",
                reason="a test",
                figures=Figures(),
                promoted_at=datetime(2026, 5, 4, tzinfo=UTC),
            )
        )


def test_the_forecast_is_the_pipelines_own_of_the_last_prices(db: str) -> None:
    found = document(run(db, "--symbol", "amd", "--json", "--seed", "7"))
    series = find_series("AMD", None)
    pipeline = TotoPipeline.from_pretrained("toto-mini")
    forecast = pipeline.predict(series.close[-512:], prediction_length=8, num_samples=256, seed=7)
    assert found["symbol"] == "AMD"
    assert found["as_of"] == f"{np.datetime_as_string(series.timestamps[-1], unit='s')}+00:00"
    assert found["last_price"] == series.close[-1]
    assert (found["horizon"], found["context_length"], found["num_samples"], found["seed"]) == (
        8,
        512,
        256,
        7,
    )
    assert found["mean"] == pytest.approx(forecast.mean[0, 0].tolist(), rel=1e-5)
    assert found["median"] == found["quantiles"]["0.5"]
    for q in ("0.1", "0.25", "0.5", "0.75", "0.9"):
        expected = forecast.quantile(float(q))[0, 0].tolist()
        assert found["quantiles"][q] == pytest.approx(expected, rel=1e-5)
    assert found["settings"] == RuntimeSettings().to_dict()
    assert found["source"] == "default"
    assert any(reason.startswith("snapshot: ") for reason in found["reasons"])
    assert found["latency_ms"] == found["metadata"]["latency_ms"] > 0
    assert found["first_call_ms"] > 0
    assert not Path(db).exists()


def test_the_request_and_the_settings_are_those_the_symbol_was_promoted_for(db: str) -> None:
    promote(db, SMALL, BF16)
    found = document(run(db, "--symbol", "AMD", "--json"))
    assert (found["horizon"], found["context_length"], found["num_samples"]) == (5, 128, 32)
    assert found["settings"] == BF16.to_dict()
    assert found["source"] == "promotion"
    assert found["since"] == "2026-05-04T00:00:00+00:00"


def test_another_request_than_was_tuned_does_not_use_settings_that_were_not_measured_for_it(db: str) -> None:
    promote(db, SMALL, BF16)
    found = document(run(db, "--symbol", "AMD", "--json", "--horizon", "6"))
    assert (found["horizon"], found["context_length"], len(found["median"])) == (6, 128, 6)
    assert found["settings"] == RuntimeSettings().to_dict()
    assert found["source"] == "default"
    assert any("prediction_length: 5 there, 6 wanted" in reason for reason in found["reasons"])


def test_a_symbol_that_was_never_tuned_uses_what_won_for_the_same_request(db: str) -> None:
    promote(db, SMALL, BF16)
    options = ("--horizon", "5", "--context-length", "128", "--num-samples", "32")
    found = document(run(db, "--symbol", "GOOGL", "--json", *options))
    assert found["settings"] == BF16.to_dict()
    assert found["source"] == "workload winner"


def test_eager_overrides_what_is_stored(db: str) -> None:
    promote(db, SMALL, BF16)
    found = document(run(db, "--symbol", "AMD", "--json", "--eager"))
    assert found["settings"] == RuntimeSettings().to_dict()
    assert (found["source"], found["horizon"]) == ("explicit", 5)


def test_the_mean_path_has_no_quantiles(db: str) -> None:
    found = document(run(db, "--symbol", "AMD", "--json", "--num-samples", "0", "--horizon", "3"))
    assert len(found["mean"]) == 3
    assert (found["median"], found["quantiles"], found["num_samples"]) == (None, {}, None)
    drawn = run(db, "--symbol", "AMD", "--num-samples", "0", "--horizon", "3")
    assert drawn.exit_code == 0
    assert "mean" in drawn.stdout
    assert "90 %" not in drawn.stdout


def test_people_get_prices_a_band_and_where_the_settings_came_from(db: str) -> None:
    promote(db, SMALL, BF16)
    result = run(db, "--symbol", "AMD", "--seed", "7")
    figures = document(run(db, "--symbol", "AMD", "--seed", "7", "--json"))
    assert result.exit_code == 0
    rows = [line.split("│") for line in result.stdout.splitlines() if "│" in line and "%" in line]
    steps = [[cell.strip() for cell in row[:4]] for row in rows]
    bands = zip(*(figures["quantiles"][q] for q in ("0.1", "0.5", "0.9")), strict=True)
    assert steps == [[str(n), *(f"{p:.3f}" for p in band)] for n, band in enumerate(bands, start=1)]
    assert "settings    eager bf16" in result.stdout
    assert "from        promotion since 2026-05-04" in result.stdout
    assert "latency " in result.stdout
    assert "first call " in result.stdout
    assert result.stderr == ""


def test_a_terminal_without_utf_8_gets_plain_characters(db: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from autotuner.cli import main; main()", "forecast", "--symbol", "BTCUSD"],
        capture_output=True,
        check=True,
        env={
            **os.environ,
            "HOME": str(tmp_path),
            "AUTOTUNE_DB": db,
            "PYTHONIOENCODING": "ascii",
            "COLUMNS": "84",
        },
    )
    text = done.stdout.decode("ascii")
    assert "O forecast, | last price" in text
    assert text.count("%") >= 8
    assert done.stderr == b""


def test_a_narrow_terminal_gets_whole_figures_and_no_bars(db: str) -> None:
    result = run(db, "--symbol", "AMD", "--horizon", "2", columns=50)
    assert result.exit_code == 0
    assert "█ forecast" not in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 50
    assert "…" not in result.stdout


def test_prices_may_come_from_a_file(db: str, tmp_path: Path) -> None:
    prices = tmp_path / "NVDA.csv"
    days = (date(2025, 1, 1) + timedelta(days=day) for day in range(40))
    rows = (f"{day},{100 + number / 4}" for number, day in enumerate(days, start=1))
    prices.write_text("\n".join(("timestamp,close", *rows)) + "\n")
    options = ("--data", str(tmp_path), "--context-length", "40", "--json")
    found = document(run(db, "--symbol", "NVDA", *options))
    assert (found["as_of"], found["last_price"]) == ("2025-02-09T00:00:00+00:00", 110.0)
    short = run(db, "--symbol", "NVDA", "--data", str(prices))
    assert short.exit_code == 1
    assert short.stdout == ""
    assert short.stderr == (
        f"Error: NVDA: {prices} holds 40 prices and the context needs 512; "
        "give a longer history or a smaller --context-length\n"
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ("--symbol", "AMD", "--horizon", "0"),
        ("--symbol", "AMD", "--horizon", "-3"),
        ("--symbol", "AMD", "--horizon", "x"),
        ("--symbol", "AMD", "--num-samples", "-1"),
        ("--symbol", "AMD", "--context-length", "0"),
        ("--symbol", "AMD", "--seed", "-1"),
        ("--symbol", "../AMD"),
        (),
    ],
)
def test_what_cannot_be_asked_is_bad_usage(db: str, arguments: tuple[str, ...]) -> None:
    result = run(db, *arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "Error: " in result.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--symbol", "ZZZ"), "no embedded series for ZZZ"),
        (("--symbol", "AMD", "--model", "/nowhere"), "/nowhere: no such model folder"),
    ],
)
def test_what_cannot_be_found_is_one_line(db: str, arguments: tuple[str, ...], says: str) -> None:
    result = run(db, *arguments, "--json")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1
    assert says in result.stderr


def test_a_broken_store_still_gives_a_forecast_and_the_reason(db: str) -> None:
    promote(db, SMALL, BF16)
    Path(db).with_name("store.snapshot.db").write_bytes(b"not a database" * 100)
    found = document(run(db, "--symbol", "AMD", "--json"))
    assert found["source"] == "default"
    assert any("cannot be used (not a database)" in reason for reason in found["reasons"])


def test_settings_that_do_not_work_here_are_told_in_one_line_and_the_forecast_comes(
    db: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = RuntimeSettings(compile_mode="default", compile_scope="layer")
    promote(db, SMALL, settings)
    monkeypatch.setenv("TORCHDYNAMO_DISABLE", "1")  # torch then runs eagerly what it was asked to compile
    result = run(db, "--symbol", "AMD", "--json")
    found = document(result)
    assert found["settings"] == RuntimeSettings().to_dict()
    assert found["source"].startswith("quarantined: ran eagerly")
    assert len(found["median"]) == 5
    assert result.stderr.startswith(f"warning: AMD: settings {settings.label} are quarantined")
    assert result.stderr.count("\n") == 1


def test_the_help_has_an_example(db: str) -> None:
    result = run(db, "--help")
    assert result.exit_code == 0
    assert "autotune forecast AMD" in result.stdout


def test_a_bar_spans_the_band_and_marks_the_centre_and_the_last_price() -> None:
    drawn = bar(0.0, 5.0, 9.0, last=2.0, span=(0.0, 9.0), glyphs=ASCII)
    assert drawn == "------|--------O------------"
    outside = bar(4.0, 4.5, 5.0, last=9.0, span=(0.0, 9.0), glyphs=ASCII)
    assert outside == " " * 12 + "--O-" + " " * 11 + "|"


@given(
    prices=st.tuples(*[st.floats(1e-6, 1e9)] * 3).map(sorted),
    last=st.floats(1e-6, 1e9),
    slack=st.floats(0.0, 1e9),
)
def test_a_bar_always_fits_and_shows_its_centre_once(prices: list[float], last: float, slack: float) -> None:
    low, centre, high = prices
    span = (min(low, last) - slack, max(high, last) + slack)
    drawn = bar(low, centre, high, last=last, span=span, glyphs=BLOCKS)
    assert len(drawn) == 28
    assert drawn.count("█") == 1
    assert set(drawn) <= set(" ▒█│")


def test_a_sparkline_goes_from_the_lowest_level_to_the_highest() -> None:
    assert sparkline([1.0, 2.0, 3.0], BLOCKS) == "▁▅█"
    assert sparkline([3.0, 1.0], ASCII) == "#_"
    assert sparkline([2.0, 2.0], BLOCKS) == "▄▄"


@pytest.mark.parametrize(
    ("price", "places"), [(109_000.0, 2), (62.5, 3), (1.08, 4), (0.00012, 8), (1e-30, 12), (0.0, 2)]
)
def test_five_digits_of_a_price_are_shown(price: float, places: int) -> None:
    assert decimals(price) == places


def test_half_a_band_is_refused() -> None:
    with pytest.raises(ValueError, match="a whole band or none"):
        ForecastView(title="AMD", history=(1.0,), centre=(1.0, 2.0), low=(1.0,), high=(2.0,))
    with pytest.raises(ValueError, match="at least one past price"):
        ForecastView(title="AMD", history=(), centre=(1.0,))
