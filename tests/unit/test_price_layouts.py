"""Price files as sources and tools write them give the prices that stand in them, to the last bit."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.price_texts import days, read, refusal_of, refusal_or_sound_prices
from toto_core.prices.options import PriceOptions
from toto_core.prices.reading import Prices
from toto_core.series import SeriesError, read_series

FILES = Path(__file__).parents[1] / "data" / "prices"
EXPECTED: dict[str, dict[str, Any]] = json.loads((FILES / "EXPECTED.json").read_text())
REFUSALS = {
    "bitstamp_nan.csv": "14 of 40 rows",
    "dst_naive_local.csv": "--timezone",
    "german_semicolon.csv": "separator ';'; the columns are 'Datum, Er\u00f6ffnung, Schluss'",
    "hourly_date_only.csv": "is there twice with different prices",
    "html_error.csv": "a web page",
    "mixed_naive_and_offset.csv": "its offset from UTC, and rows before it do not",
    "negative_oil.csv": "--allow-negative",
    "xlsx_named_csv.csv": "an Excel workbook: save it as CSV",
    "yahoo_negative_adj.csv": "--price-column 'Close'",
}


@pytest.mark.parametrize("name", EXPECTED)
def test_a_file_that_once_failed_gives_what_stands_in_it(name: str) -> None:
    expected = EXPECTED[name]
    if "refuse" in expected:
        with pytest.raises(SeriesError) as refusal:
            read_series(FILES / name, "ZQA")
        (line,) = str(refusal.value).splitlines()
        assert line.startswith(str(FILES / name))
        assert REFUSALS[name] in line
        return
    series = read_series(FILES / name, "ZQA")
    if "rows" not in expected:
        assert len(series) == 700
        return
    assert len(series) == expected["rows"]
    assert [series.close[0], series.close[-1]] == [expected["first"][1], expected["last"][1]]
    assert series.close.sum() == pytest.approx(expected["sum"], abs=1e-9)
    for stamp, (wanted, _) in (
        (series.timestamps[0], expected["first"]),
        (series.timestamps[-1], expected["last"]),
    ):
        assert wanted in {None, str(stamp)}


DAYS = ["2024-01-02", "2024-01-03", "2024-01-15"]


@pytest.mark.parametrize(
    "text",
    [
        "1704153600,1,2,1,1.5,9,3\n1704240000,1,2,1,1.25,9,3\n1705276800,1,2,1,1.75,9,3\n",  # Kraken, no header
        "Gmt time,Open,High,Low,Close,Volume\n02.01.2024 00:00:00.000,1,2,1,1.5,9\n"
        "03.01.2024 00:00:00.000,1,2,1,1.25,9\n15.01.2024 00:00:00.000,1,2,1,1.75,9\n",  # Dukascopy
        "Local time,Close\n02.01.2024 01:00:00.000 GMT+0100,1.5\n03.01.2024 01:00:00.000 GMT+0100,1.25\n"
        "15.01.2024 01:00:00.000 GMT+0100,1.75\n",  # Dukascopy, with its offset
        "<TICKER>,<PER>,<DATE>,<TIME>,<OPEN>,<HIGH>,<LOW>,<CLOSE>,<VOL>,<OPENINT>\n"
        "AMD.US,D,20240102,000000,1,2,1,1.5,9,0\nAMD.US,D,20240103,000000,1,2,1,1.25,9,0\n"
        "AMD.US,D,20240115,000000,1,2,1,1.75,9,0\n",  # Stooq
        "timeOpen;timeClose;name;open;high;low;close;volume;marketCap;timestamp\n"
        + "".join(
            f'"{day}T00:00:00.000Z";"{day}T23:59:59.999Z";"2781";1;2;1;{price};9;9;"{day}T23:59:59.999Z"\n'
            for day, price in zip(DAYS, (1.5, 1.25, 1.75), strict=True)
        ),  # CoinMarketCap
        "20240102 000000;1;2;1;1.5;0\n20240103 000000;1;2;1;1.25;0\n20240115 000000;1;2;1;1.75;0\n",  # HistData
        "timestamp,open,high,low,close,adjusted_close,volume\n2024-01-15,1,2,1,9,1.75,9\n"
        "2024-01-03,1,2,1,9,1.25,9\n2024-01-02,1,2,1,9,1.5,9\n",  # Alpha Vantage
        "Time,Open,High,Low,Last,Change,%Chg,Volume\n01/15/2024,1,2,1,1.75,0,0%,9\n01/03/2024,1,2,1,1.25,0,0%,9\n"
        '01/02/2024,1,2,1,1.5,0,0%,9\n"Downloaded from Barchart.com as of 01-16-2024"\n',
        "Date,Price,Open,High,Low,Vol.,Change %\n"
        '"Jan 15, 2024","1.75","1","2","1","1.2M","0.1%"\n"Jan 03, 2024","1.25","1","2","1","1.2M","0.1%"\n'
        '"Jan 02, 2024","1.50","1","2","1","1.2M","0.1%"\n',  # Investing.com
        "date;close\n02.01.2024;1,50\n03.01.2024;1,25\n15.01.2024;1,75\n",  # a European bank
        "Date,Close\n02-Jan-24,1.5\n03-Jan-24,1.25\n15-Jan-24,1.75\n",
        "Date,Close\n1/2/24,1.5\n1/3/24,1.25\n1/15/24,1.75\n",
        ",symbol,date,close\n0,AMD,2024-01-02,1.5\n1,AMD,2024-01-03,1.25\n2,AMD,2024-01-15,1.75\n",
        "date\tclose\tcomment\n2024-01-02\t1.5\t\n2024-01-03\t1.25\t\n2024-01-15\t1.75\t\n",
        "date,close\n2024-01-02,1.5,\n2024-01-03,1.25,\n2024-01-15,1.75,\n",
        "Date,AMD,MSFT\n2024-01-02,1.5,7\n2024-01-03,1.25,7\n2024-01-15,1.75,7\n",
    ],
)
def test_layouts_of_well_known_sources_are_read_as_they_lie(text: str) -> None:
    prices = read(text)
    assert days(prices) == DAYS
    assert prices.close.tolist() == [1.5, 1.25, 1.75]


# How sources write a row, of a stamp of whole minutes (as an epoch: e) and a price v (with a decimal comma: c).
ROWS = {
    "iso": ("Date,Open,Close", "{t:%Y-%m-%d %H:%M:%S},1,{v!r}"),
    "iso with offsets": ("ts,close", "{t:%Y-%m-%dT%H:%M}+00:00,{v!r}"),
    "epoch s": ("unix,price", "{e},{v!r}"),
    "epoch ms": ("open_time,close", "{e}000,{v!r}"),
    "epoch us": ("t,close", "{e}000000,{v!r}"),
    "epoch ns": ("window_start,close", "{e}000000000,{v!r}"),
    "epoch floats": ("timestamp,close", "{e}.0,{v!r}"),
    "klines": ("", "{e}000,{v!r},{v!r},{v!r},{v!r},1,{e}999,9,3,1,1,0"),
    "metatrader 4": ("", "{t:%Y.%m.%d,%H:%M},{v!r},{v!r},{v!r},{v!r},1"),
    "metatrader 5": (
        "<DATE>|<TIME>|<OPEN>|<HIGH>|<LOW>|<CLOSE>|<VOL>".replace("|", "\t"),
        "{t:%Y.%m.%d\t%H:%M}:00\t{v!r}\t{v!r}\t{v!r}\t{v!r}\t1",
    ),
    "compact": ("timestamp,close", "{t:%Y%m%d%H%M},{v!r}"),
    "american": ("Date,Close/Last", "{t:%m/%d/%Y %I:%M %p},${v:.4f}"),
    "month names": ("Date,Close*", '"{t:%b %d, %Y %H:%M}",{v!r}'),
    "thousands": ("date,close", '{t:%Y-%m-%d %H:%M},"${v:,.4f}"'),
    "decimal commas": ("Date;Close", "{t:%d.%m.%Y %H:%M};{c}"),
    "several symbols": ("symbol,timestamp,close", "AMD,{t:%Y-%m-%dT%H:%M}Z,{v!r}\nZZZ,{t:%Y-%m-%dT%H:%M}Z,3"),
}
FRAMES: dict[str, Callable[[pd.DataFrame], pd.DataFrame]] = {
    "parquet": lambda frame: frame,
    "parquet, nameless": lambda frame: frame.rename_axis(None),
    "parquet, utc": lambda frame: frame.tz_localize("UTC").reset_index(),
    "parquet, epochs": lambda frame: frame.set_axis([_epoch(stamp) for stamp in frame.index]).rename_axis(
        "time"
    ),
    "parquet, text": lambda frame: frame.reset_index().astype(str),
}
WRAPPED: dict[str, Callable[[bytes], bytes]] = {
    "plain": lambda content: content,
    "gzip": gzip.compress,
    "utf-16": lambda content: content.decode().encode("utf-16"),
    "windows": lambda content: b"\xef\xbb\xbf" + content.replace(b"\n", b"\r\n") + b"\r\n",
    "newest first": lambda content: b"\n".join([content.split(b"\n")[0], *content.split(b"\n")[:0:-1]]),
}
Series = tuple[list[datetime], list[float]]


def _epoch(stamp: datetime) -> int:
    return int((stamp - datetime(1970, 1, 1)).total_seconds())


def written(layout: str, series: Series) -> bytes:
    """The series as one kind of source writes it."""
    if layout in FRAMES:
        stamps, prices = series
        frame = pd.DataFrame({"close": prices}, index=pd.DatetimeIndex(stamps, name="timestamp"))
        sink = io.BytesIO()
        FRAMES[layout](frame).to_parquet(sink)
        return sink.getvalue()
    header, row = ROWS[layout]
    turned = str.maketrans(",.", ".,")
    rows = [
        row.format(t=t, v=v, e=_epoch(t), c=f"{v:,.4f}".translate(turned))
        for t, v in zip(*series, strict=True)
    ]
    return "\n".join([header, *rows] if header else rows).encode()


@st.composite
def whole_series(draw: st.DrawFn) -> Series:
    """Stamps of whole minutes in order, of which one tells day from month, and prices of four decimals."""
    begin = draw(st.datetimes(datetime(2003, 1, 1), datetime(2020, 1, 1))).replace(
        day=14, second=0, microsecond=0
    )
    steps = draw(st.lists(st.integers(1, 3_000), min_size=1, max_size=20))
    prices = draw(st.lists(st.integers(1_001, 10**9), min_size=len(steps), max_size=len(steps)))
    stamps = [begin + timedelta(minutes=int(minute)) for minute in np.cumsum(steps) - steps[0]]
    return stamps, [price / 10_000 for price in prices]


@pytest.mark.parametrize("layout", [*ROWS, *FRAMES])
@settings(max_examples=25)
@given(series=whole_series())
def test_a_series_reads_back_to_the_last_bit_from_every_layout(layout: str, series: Series) -> None:
    found = read(written(layout, series))
    np.testing.assert_array_equal(found.stamps, np.array(series[0], dtype="datetime64[ns]"))
    assert found.close.tolist() == series[1]


@given(
    series=whole_series(),
    layout=st.sampled_from(["iso", "american", "thousands"]),
    how=st.sampled_from(list(WRAPPED)),
)
def test_what_is_wrapped_around_the_text_changes_nothing(layout: str, series: Series, how: str) -> None:
    found = read(WRAPPED[how](written(layout, series)))
    assert found.close.tolist() == series[1]


@pytest.mark.parametrize("layout", [*ROWS, *FRAMES])
@settings(max_examples=25)
@given(
    series=whole_series(),
    damage=st.lists(st.tuples(st.integers(0), st.integers(0, 255)), min_size=1, max_size=3),
)
def test_damaged_bytes_of_every_layout_give_one_line_or_prices_in_order(
    layout: str, series: Series, damage: list[tuple[int, int]]
) -> None:
    content = bytearray(written(layout, series))
    for position, value in damage:
        content[position % len(content)] = value
    line = refusal_or_sound_prices(bytes(content))
    assert line is None or line.startswith("X")


def _joined(prices: Prices) -> list[tuple[str, float]]:
    return [(str(t)[:16], float(v)) for t, v in zip(prices.stamps, prices.close, strict=True)]


def test_local_times_across_a_clock_change_are_told_apart_by_their_order() -> None:
    clocks = ("00:30", "01:00", "01:30", "01:00", "01:30", "02:00")
    text = "datetime,close\n" + "".join(
        f"2024-11-03 {clock},{i}\n" for i, clock in enumerate(clocks, start=1)
    )
    newyork = PriceOptions(timezone="America/New_York")
    expected = [
        ("2024-11-03T04:30", 1.0), ("2024-11-03T05:00", 2.0), ("2024-11-03T05:30", 3.0),
        ("2024-11-03T06:00", 4.0), ("2024-11-03T06:30", 5.0), ("2024-11-03T07:00", 6.0),
    ]  # fmt: skip
    assert _joined(read(text, newyork)) == expected
    header, *rows = text.splitlines()
    assert _joined(read("\n".join([header, *rows[::-1]]), newyork)) == expected
    assert "is there twice with different prices" in refusal_of(text)
    once = "datetime,close\n2024-11-03 00:30,1\n2024-11-03 01:00,2\n2024-11-03 02:00,6\n"
    assert refusal_of(once, newyork).endswith(
        "comes twice that night in America/New_York, and the rows do not show which"
    )
    skipped = "datetime,close\n2024-03-10 01:30,1\n2024-03-10 02:30,2\n"
    assert refusal_of(skipped, newyork) == (
        "X, line 3: datetime 2024-03-10T02:30:00 does not exist in America/New_York: the clocks skipped it"
    )


def test_a_zone_leaves_stamps_with_an_offset_and_epochs_alone() -> None:
    zone = PriceOptions(timezone="Asia/Tokyo")
    assert _joined(read("time,close\n2024-01-01T09:00Z,1\n", zone)) == [("2024-01-01T09:00", 1.0)]
    assert _joined(read("time,close\n1704067200,1\n", zone)) == [("2024-01-01T00:00", 1.0)]
    assert _joined(read("time,close\n2024-01-01 09:00,1\n", zone)) == [("2024-01-01T00:00", 1.0)]
