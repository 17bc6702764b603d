from __future__ import annotations

import gzip
import os
import re
from collections.abc import Callable
from dataclasses import FrozenInstanceError
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toto_core.series import (
    EMBEDDED,
    PriceSeries,
    SeriesError,
    available_symbols,
    find_series,
    passed_over,
    read_series,
)
from toto_core.symbols import SymbolError

DAY = timedelta(days=1)
MONDAY = datetime(2024, 1, 1, tzinfo=UTC)
GOOD_CSV = "timestamp,close\n2024-01-01,10\n2024-01-02,11\n2024-01-03,12\n"

stamps_in_range = st.datetimes(min_value=datetime(1700, 1, 1), max_value=datetime(2024, 1, 1)).map(
    lambda stamp: stamp.replace(tzinfo=UTC)
)
prices_in_range = st.floats(min_value=1e-300, max_value=1e300)

WriteCsv = Callable[..., Path]


@pytest.fixture
def write_csv(tmp_path: Path) -> WriteCsv:
    def write(text: str | bytes, name: str = "AMD.csv") -> Path:
        content = text.encode() if isinstance(text, str) else text
        path = tmp_path / name
        path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
        return path

    return write


def prices_frame() -> pd.DataFrame:
    return pd.DataFrame({"close": [10.0, 11.0, 12.0]}, index=pd.date_range("2024-01-01", periods=3))


def refusal_of(path: Path, minimum_points: int = 1) -> str:
    with pytest.raises(SeriesError) as refusal:
        read_series(path, "AMD", minimum_points=minimum_points)
    message = str(refusal.value)
    assert len(message.splitlines()) == 1
    assert message.startswith(str(path))
    return message.removeprefix(str(path))


def series_at(stamps: list[datetime]) -> PriceSeries:
    naive = [stamp.astimezone(UTC).replace(tzinfo=None) for stamp in stamps]
    return PriceSeries(
        symbol="AMD",
        source="made here",
        timestamps=np.array(naive, dtype="datetime64[ns]"),
        close=np.arange(1.0, len(stamps) + 1),
        repairs=(),
    )


@pytest.mark.parametrize("name", ["AMD.csv", "AMD.csv.gz", "AMD.CSV"])
def test_a_csv_file_is_read(write_csv: WriteCsv, name: str) -> None:
    series = read_series(write_csv(GOOD_CSV, name), "amd")
    assert series.symbol == "AMD"
    assert series.source.endswith(name)
    assert len(series) == 3
    assert series.timestamps.dtype == np.dtype("datetime64[ns]")
    assert series.timestamps[1] == np.datetime64("2024-01-02", "ns")
    assert series.close.tolist() == [10.0, 11.0, 12.0]
    assert series.repairs == ()


def test_too_few_points_are_refused_after_duplicates_are_dropped(write_csv: WriteCsv) -> None:
    path = write_csv(GOOD_CSV + "2024-01-03,12\n")
    assert len(read_series(path, "AMD", minimum_points=3)) == 3
    assert ": 3 points where context length + prediction length needs 4" in refusal_of(path, minimum_points=4)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    assert refusal_of(tmp_path / "AMD.csv") == ": cannot be read: No such file or directory"


def test_a_path_that_cannot_exist_is_refused(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 5000)
    with pytest.raises(SeriesError, match="File name too long"):
        find_series("AMD", path)
    with pytest.raises(SeriesError, match="File name too long"):
        available_symbols(path)


def test_a_folder_or_pipe_in_place_of_a_file_is_refused_without_waiting(tmp_path: Path) -> None:
    pipe = tmp_path / "AMD.csv"
    os.mkfifo(pipe)
    assert refusal_of(tmp_path) == ": a folder or device where a price file is wanted"
    assert refusal_of(pipe) == ": a folder or device where a price file is wanted"


def test_what_a_file_is_its_bytes_tell_and_not_its_name(write_csv: WriteCsv, tmp_path: Path) -> None:
    assert len(read_series(write_csv(GOOD_CSV, "AMD.xlsx"), "AMD")) == 3
    prices_frame().to_parquet(tmp_path / "AMD.csv")
    assert len(read_series(tmp_path / "AMD.csv", "AMD")) == 3
    assert refusal_of(write_csv("<html>429</html>")).startswith(": a web page")


def test_a_bad_symbol_is_refused_before_any_file_is_looked_for(tmp_path: Path) -> None:
    (tmp_path / "AMD.csv").write_text(GOOD_CSV)
    inner = tmp_path / "inner"
    inner.mkdir()
    for data in (inner, tmp_path / "AMD.csv", None):
        with pytest.raises(SymbolError):
            find_series("../AMD", data)
    with pytest.raises(SymbolError):
        read_series(tmp_path / "AMD.csv", "AMD\n")


def test_repairs_of_the_file_are_told_in_one_list(write_csv: WriteCsv) -> None:
    rows = [
        "2024-01-02,9,2",
        "2024-01-01,9,1",
        "2024-01-03,9,3",
        "2024-01-09,9,50",
        "2024-01-09,9,50",
        "2024-01-10,9,",
    ]
    rows += [f"2024-01-{day},9,50" for day in range(11, 30)]
    text = "\n".join(["date,close,adj close", *rows])
    assert read_series(write_csv(text), "AMD").repairs == (
        "column 'adj close' used rather than 'close'",
        "1 row without adj close left out",
        "rows out of time order: sorted",
        "1 duplicated timestamp: the last kept",
        "2 gaps longer than 1.5 days left as they are, the longest 6 days after 2024-01-03T00:00:00Z",
        "1 jump of 5x or more, the first from 3 to 50 at 2024-01-09T00:00:00Z: a split, or a wrong decimal mark",
    )


def test_prices_are_named_by_file_line_and_reason(write_csv: WriteCsv) -> None:
    path = write_csv(GOOD_CSV + "2024-01-04,abc\n")
    assert refusal_of(path) == ", line 5: close 'abc' is not a number"


def test_a_parquet_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "AMD.parquet"
    prices_frame().to_parquet(path)
    assert read_series(path, "AMD").close.tolist() == [10.0, 11.0, 12.0]


def test_a_folder_is_searched_for_the_symbol(write_csv: WriteCsv, tmp_path: Path) -> None:
    write_csv(GOOD_CSV, "AMD.csv")
    write_csv(GOOD_CSV, "brk.b.csv.gz")
    prices_frame().to_parquet(tmp_path / "BTCUSD.parquet")
    assert find_series("amd", tmp_path).source == str(tmp_path / "AMD.csv")
    assert find_series("BRK.B", tmp_path).source == str(tmp_path / "brk.b.csv.gz")
    assert find_series("BTCUSD", tmp_path).source == str(tmp_path / "BTCUSD.parquet")


def test_a_symbol_without_a_file_says_which_names_were_looked_for(tmp_path: Path) -> None:
    with pytest.raises(SeriesError) as refusal:
        find_series("AMD", tmp_path)
    assert str(refusal.value) == (
        f"{tmp_path}: no price file for AMD: looked for AMD.csv, AMD.csv.gz, AMD.parquet, in any case"
    )


def test_a_second_file_of_the_symbol_is_reported_and_not_read(write_csv: WriteCsv, tmp_path: Path) -> None:
    write_csv(GOOD_CSV, "AMD.csv")
    write_csv("broken", "AMD.csv.gz")
    series = find_series("AMD", tmp_path)
    assert series.source == str(tmp_path / "AMD.csv")
    assert series.repairs == ("AMD.csv.gz also there: not read",)


def test_one_file_serves_the_symbol_asked_for(write_csv: WriteCsv) -> None:
    path = write_csv(GOOD_CSV, "prices.csv")
    assert find_series("AMD", path).symbol == "AMD"
    assert available_symbols(path) == ("PRICES",)


def test_a_folder_that_is_not_there_is_refused_as_missing(tmp_path: Path) -> None:
    for look in (lambda data: find_series("AMD", data), available_symbols):
        with pytest.raises(SeriesError, match="cannot be read: No such file or directory"):
            look(tmp_path / "nowhere")


def test_available_symbols_are_those_that_can_be_found(write_csv: WriteCsv, tmp_path: Path) -> None:
    for name in ("AMD.csv", "amd.csv.gz", "brk.b.csv", "Mixed.csv", "ß.csv", "-X.csv", ".csv", "A B.csv",
                 "NOTES.txt", "UP.CSV", "X.csv.bak"):  # fmt: skip
        write_csv(GOOD_CSV, name)
    (tmp_path / "FOLDER.csv").mkdir()
    for name in ("BTC%2FUSDT.csv", "^GSPC.csv", "es=f.csv", "M&M.NS.csv", "A%zz.csv", "%ff.csv"):
        write_csv(GOOD_CSV, name)
    assert available_symbols(tmp_path) == (
        "AMD",
        "BRK.B",
        "BTC/USDT",
        "ES=F",
        "M&M.NS",
        "MIXED",
        "UP",
        "^GSPC",
    )
    assert passed_over(tmp_path) == (
        "%ff.csv", "-X.csv", "A B.csv", "A%zz.csv", "FOLDER.csv", "NOTES.txt", "X.csv.bak", "\u00df.csv",
    )  # fmt: skip
    for symbol in available_symbols(tmp_path):
        assert len(find_series(symbol, tmp_path)) == 3


def test_the_name_of_one_file_that_is_no_symbol_gives_no_symbols(write_csv: WriteCsv) -> None:
    assert available_symbols(write_csv(GOOD_CSV, "straße.csv")) == ()
    assert available_symbols(write_csv(GOOD_CSV, "prices 2024.csv")) == ()


def test_a_path_with_a_line_break_still_gives_one_line(tmp_path: Path) -> None:
    with pytest.raises(SeriesError) as refusal:
        read_series(tmp_path / "a\nb.csv", "AMD")
    assert len(str(refusal.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("symbol", "points", "first", "last"),
    [
        ("AAPL", 4529, "2005-01-03", "2022-12-28T00"),
        ("AMD", 4529, "2005-01-03", "2022-12-28T00"),
        ("BTCUSD", 55765, "2017-08-17T04", "2024-01-01T23"),
        ("ETHUSD", 17512, "2017-10-01", "2019-10-01T00"),
        ("GOOGL", 2335, "2009-05-22", "2018-08-29T00"),
    ],
)
def test_the_embedded_series_are_whole(symbol: str, points: int, first: str, last: str) -> None:
    series = find_series(symbol, None, minimum_points=points)
    assert (len(series), series.source) == (points, EMBEDDED)
    assert series.timestamps[0] == np.datetime64(first, "ns")
    assert series.timestamps[-1] == np.datetime64(last, "ns")
    assert all("left as they are" in repair for repair in series.repairs)


def test_the_embedded_symbols_are_listed_when_another_is_asked_for() -> None:
    assert available_symbols(None) == ("AAPL", "AMD", "BTCUSD", "ETHUSD", "GOOGL")
    with pytest.raises(SeriesError) as refusal:
        find_series("TSLA", None)
    assert str(refusal.value) == (
        "no embedded series for TSLA, only for AAPL, AMD, BTCUSD, ETHUSD, GOOGL: give --data for others"
    )


def test_an_embedded_series_that_is_too_short_is_refused() -> None:
    with pytest.raises(SeriesError, match=r"^embedded AMD\.csv\.gz: 4529 points where .* needs 5000"):
        find_series("AMD", None, minimum_points=5000)


def test_a_series_is_read_only_and_apart_from_the_arrays_it_was_made_of() -> None:
    stamps = np.array(["2024-01-01", "2024-01-02"], dtype="datetime64[ns]")
    close = np.array([1.0, 2.0])
    series = PriceSeries(symbol="AMD", source="x", timestamps=stamps, close=close, repairs=())
    digest = series.digest
    close[0] = 99.0
    assert series.close[0] == 1.0
    assert series.digest == digest
    with pytest.raises(ValueError, match="read-only"):
        series.close[0] = 5.0
    with pytest.raises(ValueError, match="read-only"):
        series.timestamps[0] = np.datetime64("2020-01-01")
    with pytest.raises(FrozenInstanceError):
        series.symbol = "X"  # type: ignore[misc]


def test_the_digest_tells_prices_and_times_apart_and_ignores_the_rest(write_csv: WriteCsv) -> None:
    series = read_series(write_csv(GOOD_CSV), "AMD")
    assert re.fullmatch("[0-9a-f]{64}", series.digest)
    assert read_series(write_csv(GOOD_CSV, "X.csv.gz"), "OTHER").digest == series.digest
    for changed in (GOOD_CSV.replace("12\n", "12.5\n"), GOOD_CSV.replace("-03", "-04")):
        assert read_series(write_csv(changed), "AMD").digest != series.digest


@pytest.mark.parametrize(
    ("stamps", "close", "reason"),
    [
        (["2024-01-02", "2024-01-01"], [1.0, 2.0], "strictly increasing"),
        (["2024-01-01", "2024-01-01"], [1.0, 2.0], "strictly increasing"),
        (["2024-01-01", "NaT"], [1.0, 2.0], "strictly increasing"),
        (["NaT"], [1.0], "strictly increasing"),
        (["2024-01-01"], [1.0, 2.0], "of one length"),
        ([], [], "not empty"),
        ([["2024-01-01"]], [[1.0]], "one-dimensional"),
        (["2024-01-01"], [float("nan")], "finite"),
        (["2024-01-01"], [float("inf")], "finite"),
    ],
)
def test_a_series_that_breaks_its_promise_cannot_be_made(
    stamps: list[str], close: list[float], reason: str
) -> None:
    with pytest.raises(SeriesError, match=reason):
        PriceSeries(
            symbol="AMD",
            source="x",
            timestamps=np.array(stamps, dtype="datetime64[ns]"),
            close=np.array(close),
            repairs=(),
        )


def test_a_series_needs_an_upper_case_symbol() -> None:
    with pytest.raises(SymbolError):
        PriceSeries(
            symbol="amd",
            source="x",
            timestamps=np.array(["2024-01-01"], dtype="datetime64[ns]"),
            close=np.array([1.0]),
            repairs=(),
        )


@given(points=st.integers(min_value=1, max_value=300))
def test_the_last_fifth_begins_after_four_fifths(points: int) -> None:
    series = series_at([MONDAY + i * DAY for i in range(points)])
    assert series.last_fifth_start() == int(0.8 * points)


@given(
    rows=st.lists(st.tuples(stamps_in_range, prices_in_range), min_size=1, max_size=30),
    repeats=st.integers(min_value=0, max_value=3),
    offset_minutes=st.integers(min_value=-1439, max_value=1439),
)
def test_any_rows_written_to_a_file_come_back_sorted_with_the_last_duplicate(
    rows: list[tuple[datetime, float]],
    repeats: int,
    offset_minutes: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    zone = timezone(timedelta(minutes=offset_minutes))
    rows = [*dict(rows).items()]
    rows = [*rows, *((stamp, price) for stamp, price in rows[:repeats])]
    lines = [f"{stamp.astimezone(zone).isoformat()},{price!r}" for stamp, price in rows]
    path = tmp_path_factory.mktemp("rows") / "AMD.csv"
    path.write_text("\n".join(["timestamp,close", *lines]))
    series = read_series(path, "AMD")
    expected = sorted(dict(rows).items())
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    assert [price for _, price in expected] == series.close.tolist()
    assert [(stamp - epoch) // timedelta(microseconds=1) * 1000 for stamp, _ in expected] == (
        series.timestamps.astype(np.int64).tolist()
    )
    duplicates = len(rows) - len(expected)
    assert any(repair.startswith(f"{duplicates} duplicated") for repair in series.repairs) == (duplicates > 0)
