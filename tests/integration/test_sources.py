"""Prices from outside become files that runs read, or one line and nothing: no answer is repaired in silence."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from autotuner.commands.fetch import fetch
from autotuner.sources.answer import fetched
from autotuner.sources.origin import provenance
from autotuner.sources.price_files import Kept, keep
from autotuner.sources.protocol import SourceError, Wanted
from autotuner.sources.registry import installed
from tests.support.command import Cli
from tests.support.invoking import refused
from tests.support.nlinear_model import installed_example
from toto_core.series import PriceSeries, find_series, passed_over, read_series

WANTED = Wanted(symbol="AMD", period="2y")
NOW = datetime(2026, 5, 4, 12, 30, tzinfo=UTC)


def frame(
    prices: Any, *, begins: str = "2024-01-01", zone: str | None = None, column: str = "Close"
) -> pd.DataFrame:
    times = pd.date_range(begins, periods=len(prices), freq="D", tz=zone)
    return pd.DataFrame({column: prices}, index=times)


def given(answer: object) -> PriceSeries:
    return fetched(lambda _: answer, "mine", WANTED)  # type: ignore[arg-type]


def why_refused(answer: object) -> str:
    with pytest.raises(SourceError) as caught:
        given(answer)
    text = str(caught.value)
    assert text.startswith("AMD: ")
    assert "\n" not in text
    return text


def put(folder: Path, prices: Any, *, begins: str = "2024-01-01", anew: bool = False, **changes: Any) -> Kept:
    wanted = replace(WANTED, **changes)
    series = given(frame(prices, begins=begins))
    return keep(folder, series, wanted, source="mine", version="1", now=NOW, replace=anew)


def test_times_and_prices_are_those_that_the_source_gave() -> None:
    series = given(frame([1.1, 2.2, 3.3], zone="America/New_York"))
    assert series.timestamps[0] == np.datetime64("2024-01-01T05:00")
    assert series.close.tolist() == [1.1, 2.2, 3.3]
    both = frame([1.0, 2.0]).assign(**{"Adj Close": [0.5, 1.0]})
    assert given(both).close.tolist() == [0.5, 1.0]
    assert given(both.iloc[::-1]).close.tolist() == [0.5, 1.0]
    several = pd.concat({"AMD": frame([1.0, 2.0]), "AAPL": frame([7.0, 8.0])}, axis=1)
    assert given(several).close.tolist() == given(several.swaplevel(axis=1)).close.tolist() == [1.0, 2.0]


def test_a_path_is_read_as_a_price_file_is(tmp_path: Path) -> None:
    path = tmp_path / "answer.csv"
    path.write_text("timestamp,close\n2024-01-01,1.5\n2024-01-02,2.5\n")
    assert given(path).close.tolist() == [1.5, 2.5]
    path.write_text("<html>sign in</html>")
    assert "what mine gave cannot be used" in why_refused(path)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (frame([]), "mine has no prices of it"),
        (
            frame([1.0, np.nan, np.nan, 2.0]),
            "2 of 4 prices are missing, several in a row, the first at 2024-01-02",
        ),
        (frame([1.0, 2.0]).set_index(pd.DatetimeIndex(["2024-01-01"] * 2)), "1 times come twice"),
        (frame([1.0, 0.0]), "the price at 2024-01-02T00:00:00Z is 0"),
        (frame([1.0, np.inf]), "is inf"),
        (frame([1.0, 2.0]).reset_index(drop=True), "its index holds no times"),
        (frame([1.0], column="Open").assign(High=2.0), "none of its columns open, high is called close"),
        (pd.concat({"AAPL": frame([1.0])}, axis=1), "AMD not among them"),
        ({"close": [1.0]}, "neither a DataFrame nor a path"),
        (None, "neither a DataFrame nor a path"),
    ],
)
def test_what_is_no_clear_answer_is_one_line(answer: object, why: str) -> None:
    assert why in why_refused(answer)


def test_one_price_that_is_missing_by_itself_is_left_out_and_said(tmp_path: Path) -> None:
    assert put(tmp_path, [1.0, np.nan, 3.0]).said == ("1 single missing prices left out",)
    assert read_series(tmp_path / "AMD.csv", "AMD").close.tolist() == [1.0, 3.0]


def test_whatever_a_source_raises_is_a_failure_of_that_symbol_alone() -> None:
    def broken(wanted: Wanted) -> pd.DataFrame:
        raise RuntimeError("429\nToo many")

    with pytest.raises(SourceError, match=r"^AMD: mine failed: RuntimeError: 429 Too many$"):
        fetched(broken, "mine", WANTED)


def test_a_file_says_where_its_prices_came_from_and_is_read_like_any_other(tmp_path: Path) -> None:
    kept = put(tmp_path, [1.5, 2.5], start=date(2024, 1, 1), period=None)

    assert (kept.points, kept.added, kept.path) == (2, 2, tmp_path / "AMD.csv")
    assert find_series("AMD", tmp_path).repairs == ()
    assert passed_over(tmp_path) == ()
    assert provenance(kept.path) == {
        "source": "mine",
        "version": "1",
        "fetched_at": "2026-05-04T12:30:00+00:00",
        "symbol": "AMD",
        "interval": "1d",
        "start": "2024-01-01",
    }


def test_what_was_there_goes_on_where_the_prices_of_both_agree(tmp_path: Path) -> None:
    put(tmp_path, [1.0, 2.0, 3.0, 4.0])
    before = read_series(tmp_path / "AMD.csv", "AMD")
    kept = put(tmp_path, [2.0 * (1 + 1e-7), 3.0, 4.5, 5.0], begins="2024-01-02")
    after = read_series(tmp_path / "AMD.csv", "AMD")

    assert (kept.points, kept.added, kept.said) == (5, 1, ())
    assert after.close.tolist() == [
        1.0,
        2.0,
        3.0,
        4.5,
        5.0,
    ]  # the fourth day was not over when it was fetched
    assert before.close[:3].tolist() == after.close[:3].tolist()


def test_where_nothing_is_new_the_file_is_left_alone(tmp_path: Path) -> None:
    put(tmp_path, [1.0, 2.0, 3.0, 4.0])
    before = (tmp_path / "AMD.csv").stat()
    kept = put(tmp_path, [2.0, 3.0, 4.0], begins="2024-01-02", period="1y")

    assert (kept.added, kept.said) == (0, ("nothing new",))
    assert (tmp_path / "AMD.csv").stat().st_mtime_ns == before.st_mtime_ns


def test_prices_that_were_adjusted_since_replace_all_and_that_is_said(tmp_path: Path) -> None:
    put(tmp_path, [1.0, 2.0, 3.0, 4.0])
    kept = put(tmp_path, [1.0, 1.5, 2.0], begins="2024-01-02")

    assert read_series(tmp_path / "AMD.csv", "AMD").close.tolist() == [1.0, 1.5, 2.0]
    (said,) = kept.said
    assert (
        said
        == "2 of 2 prices that were there are others now (adjusted?): replaced as a whole; 1 earlier ones are gone"
    )


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"begins": "2024-02-01"}, "too little in common to compare"),
        ({"interval": "1h"}, "has interval 1d, not 1h"),
    ],
)
def test_what_cannot_be_put_together_is_refused_and_leaves_the_file_as_it_was(
    tmp_path: Path, changes: dict[str, Any], why: str
) -> None:
    put(tmp_path, [1.0, 2.0, 3.0])
    before = (tmp_path / "AMD.csv").read_bytes()
    with pytest.raises(SourceError, match=why):
        put(tmp_path, [3.0, 4.0, 5.0], **changes)

    assert (tmp_path / "AMD.csv").read_bytes() == before
    assert put(tmp_path, [3.0, 4.0, 5.0], anew=True, **changes).points == 3


def test_a_file_of_ones_own_is_never_written_over(tmp_path: Path) -> None:
    (tmp_path / "amd.parquet").write_bytes(b"mine")
    with pytest.raises(SourceError, match=r"amd\.parquet was not fetched by autotune"):
        put(tmp_path, [1.0, 2.0])

    assert [path.name for path in tmp_path.iterdir()] == ["amd.parquet"]


def test_a_source_that_is_missing_is_refused_and_says_how_to_get_it(tmp_path: Path) -> None:
    arguments = ("--symbol", "AMD", "--to", str(tmp_path / "prices"))
    by_name = {each.name: each for each in installed()}

    assert set(by_name) == {"yfinance"}
    assert "data sources" in refused(_run("fetch", "--source", "none", *arguments), 2)
    if by_name["yfinance"].fault:  # it is installed by those who want it
        missing = refused(_run("fetch", "--source", "yfinance", *arguments), 1)
        assert missing == "Error: yfinance is missing: pip install 'toto-autotune[yfinance]'"
    assert not (tmp_path / "prices").exists()


def test_the_source_of_the_documentation_is_installed_fetched_from_and_read(tmp_path: Path) -> None:
    autotune, prices = Cli(tmp_path), tmp_path / "prices"
    extra = installed_example(tmp_path, "walk")
    ask = ("data", "fetch", "--source", "walk", "--symbol", "AMD", "--symbol", "ES=F", "--interval", "D")
    listed = autotune.run("data", "sources", extra=extra)
    first = autotune.run(*ask, "--to", str(prices), extra=extra)
    longer = autotune.run(*ask, "--to", str(prices), "--option", "days=760", "--json", extra=extra)

    assert "autotune-walk" in listed.stdout
    assert first.returncode == longer.returncode == 1
    assert first.stdout == f"AMD: {prices}/AMD.csv: 750 prices, 750 new\n"
    assert first.stderr == "Error: ES=F: walk failed: ValueError: ES=F is no symbol of mine\n"
    assert '"added": 10' in longer.stdout
    assert [path.name for path in prices.iterdir()] == ["AMD.csv"]
    assert len(find_series("AMD", prices, minimum_points=520)) == 760


def test_each_symbol_that_fails_is_named_and_the_others_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def some(wanted: Wanted) -> pd.DataFrame:
        return frame([1.0, 2.0] if wanted.symbol == "AAPL" else [])

    monkeypatch.setattr("autotuner.commands.fetch.source_named", lambda _: some)
    kept, failures = fetch(("AMD", "AAPL", "BTC/USDT"), WANTED, source="mine", folder=tmp_path)

    assert [each.symbol for each in kept] == ["AAPL"]
    assert [line.partition(":")[0] for line in failures] == ["AMD", "BTC/USDT"]
    assert [path.name for path in tmp_path.iterdir()] == ["AAPL.csv"]


def _run(*arguments: str) -> Any:
    from click.testing import CliRunner

    from autotuner.cli import cli

    return CliRunner().invoke(cli, ["data", *arguments], prog_name="autotune")
