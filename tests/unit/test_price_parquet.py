from __future__ import annotations

import io
from collections.abc import Callable
from datetime import datetime, time
from decimal import Decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.price_texts import read, refusal_of, refusal_or_sound_prices
from toto_core.prices.reading import Prices


def bytes_of_table(columns: dict[str, object]) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue()


def bytes_of_frame(frame: pd.DataFrame) -> bytes:
    sink = io.BytesIO()
    frame.to_parquet(sink)
    return sink.getvalue()


def hours(columns: Prices) -> list[str]:
    return [str(stamp) for stamp in columns.stamps.astype("datetime64[h]")]


BLANK = "close is blank, as in {} of 2 rows (50%, and at most 5% may lack one): --price-column names another column"
SOUND_PARQUET = bytes_of_table({"timestamp": [1_700_000_000, 1_700_000_001], "close": [1.5, 2.5]})


def prices_frame() -> pd.DataFrame:
    index = pd.date_range("2024-01-01", periods=3, freq="D", tz="America/New_York")
    return pd.DataFrame({"timestamp": index, "Close": [10.0, 11.0, 12.0]})


@pytest.mark.parametrize(
    "shape",
    [
        lambda frame: frame,
        lambda frame: frame.set_index("timestamp"),
        lambda frame: frame.set_index("timestamp").rename_axis("Date"),
        lambda frame: frame.set_index("timestamp").rename_axis("when"),
        lambda frame: frame.set_index("timestamp").rename_axis(None),
        lambda frame: frame.assign(timestamp=frame["timestamp"].map(lambda stamp: stamp.isoformat())),
        lambda frame: frame.assign(timestamp=frame["timestamp"].astype(str)).set_index("timestamp"),
        lambda frame: frame.assign(timestamp=frame["timestamp"].dt.tz_convert("UTC").dt.tz_localize(None)),
        lambda frame: frame.assign(timestamp=frame["timestamp"].map(lambda stamp: int(stamp.timestamp()))),
        lambda frame: frame.assign(Close=frame["Close"].astype("float32")),
        lambda frame: frame.assign(Close=frame["Close"].astype("int64")),
        lambda frame: frame.assign(Close=frame["Close"].astype(str)),
        lambda frame: frame.assign(Close=frame["Close"].astype(str).astype("category")),
    ],
)
def test_a_parquet_file_is_read_from_a_column_or_its_index(
    shape: Callable[[pd.DataFrame], pd.DataFrame],
) -> None:
    columns = read(bytes_of_frame(shape(prices_frame())))
    assert hours(columns) == ["2024-01-01T05", "2024-01-02T05", "2024-01-03T05"]
    assert columns.close.tolist() == [10.0, 11.0, 12.0]


@pytest.mark.parametrize(
    "column",
    [
        pa.array([19723, 19724], pa.int32()).cast(pa.date32()),
        pa.array([1704067200, 1704153600], pa.int64()).cast(pa.timestamp("s")),
        pa.array([1704067200000, 1704153600000], pa.int64()).cast(pa.timestamp("ms", "Asia/Tokyo")),
        pa.array([1704067200 * 10**9, 1704153600 * 10**9], pa.int64()).cast(pa.timestamp("ns", "UTC")),
        pa.array(["2024-01-01", "2024-01-02"], pa.large_string()),
        pa.array(["2024-01-01", "2024-01-02"]).dictionary_encode(),
    ],
)
def test_every_kind_of_parquet_time_is_made_utc(column: pa.Array) -> None:
    columns = read(bytes_of_table({"timestamp": column, "close": [1.0, 2.0]}))
    assert hours(columns) == ["2024-01-01T00", "2024-01-02T00"]


@pytest.mark.parametrize(
    ("closes", "reason"),
    [
        ([1.0, None], f", row 2: {BLANK.format(1)}"),
        ([1.0, float("nan")], ", row 2: " + BLANK.format(1).replace("is blank", "'nan' is no price")),
        ([1.0, float("-inf")], ", row 2: close '-inf' is not finite"),
        ([1.0, -2.5], ", row 2: close -2.5 is not above zero: --allow-negative allows it"),
        ([3, 0], ", row 2: close 0.0 is not above zero: --allow-negative allows it"),
        (
            [Decimal("1.5"), Decimal("-1.5")],
            ", row 2: close -1.5 is not above zero: --allow-negative allows it",
        ),
        ([True, False], ", row 1: close holds bool, not numbers"),
        (["1", "1_0"], ", row 2: close '1_0' is not a number"),
        (["1", None], f", row 2: {BLANK.format(1)}"),
        ([None, None], f", row 1: {BLANK.format(2).replace('50%', '100%')}"),
        (
            [[1.0], [2.0]],
            ", row 1: close holds list<element: double>, not numbers",
        ),
    ],
)
def test_a_bad_parquet_price_is_refused_with_its_row(closes: list[object], reason: str) -> None:
    content = bytes_of_table({"timestamp": ["2024-01-01", "2024-01-02"], "close": closes})
    assert refusal_of(content) == f"X{reason}"


@pytest.mark.parametrize(
    ("stamps", "reason"),
    [
        (["2024-01-01", None], ", row 2: timestamp is blank"),
        ([datetime(2024, 1, 1), None], ", row 2: timestamp is blank"),
        (["2024-01-01", "soon"], ", row 2: timestamp 'soon' is no past time written"),
        (
            [datetime(2024, 1, 1), datetime(9999, 1, 1)],
            ", row 2: timestamp is not between the years 1678 and 2261",
        ),
        (
            pa.array([0, 2**62]).cast(pa.timestamp("us", "UTC")),
            ", row 2: timestamp is not between the years 1678 and 2261",
        ),
        (
            pa.array([0, 2**31 - 1], pa.int32()).cast(pa.date32()),
            ", row 2: timestamp is not between the years 1678 and 2261",
        ),
        ([time(10), time(11)], ", row 1: timestamp holds time64[us], not times"),
        ([1, 2], ", row 1: timestamp 1 is no past time as an epoch in s, ms, us or ns, nor as YYYYMMDD"),
        ([1.5e18, 1.6e18], ", row 1: timestamp is a float so large"),
        ([[1], [2]], ", row 1: timestamp holds list<element: int64>, not times"),
        ([b"2024-01-01", b"\xff"], ", row 1: timestamp holds binary, not times"),
    ],
)
def test_a_bad_parquet_time_is_refused_with_its_row(stamps: list[object] | pa.Array, reason: str) -> None:
    assert refusal_of(bytes_of_table({"timestamp": stamps, "close": [1.0, 2.0]})).startswith(f"X{reason}")


def test_parquet_text_that_is_not_utf8_is_refused() -> None:
    offsets, text = pa.py_buffer(np.array([0, 1], dtype=np.int32)), pa.py_buffer(b"\xff")
    column = pa.Array.from_buffers(pa.string(), 1, [None, offsets, text])
    message = refusal_of(bytes_of_table({"timestamp": column, "close": [1.0]}))
    assert message.startswith("X: not a sound parquet file (")


def test_a_parquet_file_without_rows_is_refused() -> None:
    assert refusal_of(bytes_of_table({"timestamp": [], "close": []})) == "X: empty: there is no row of prices"


def test_a_parquet_index_that_cannot_be_a_time_is_no_time_column() -> None:
    frame = pd.DataFrame({"close": [1.0, 2.0, 3.0]})
    for without_time in (frame, frame.iloc[[0, 2]]):
        message = refusal_of(bytes_of_frame(without_time))
        assert message.startswith("X: no column of times by a name we know, such as date: --time-column")


def test_the_only_column_of_times_is_found_whatever_its_name() -> None:
    panel = prices_frame().assign(symbol="AMD").set_index(["symbol", "timestamp"]).rename_axis(["a", "b"])
    assert hours(read(bytes_of_frame(panel))) == ["2024-01-01T05", "2024-01-02T05", "2024-01-03T05"]


def test_two_rows_of_headers_are_known_by_their_names() -> None:
    columns = pd.MultiIndex.from_tuples([("Close", "AMD"), ("Close", "IBM"), ("High", "AMD")])
    index = pd.date_range("2024-01-01", periods=2, name="Date")
    frame = pd.DataFrame([[1.0, 7.0, 9.0], [2.0, 8.0, 9.0]], columns=columns, index=index)
    assert read(bytes_of_frame(frame)).close.tolist() == [1.0, 2.0]
    assert read(bytes_of_frame(frame.swaplevel(axis=1)), symbol="IBM").close.tolist() == [7.0, 8.0]


def test_decimals_are_the_numbers_that_their_text_is() -> None:
    closes = pa.array([Decimal("100.0012"), Decimal("0.1000")], pa.decimal128(20, 4))
    prices = read(bytes_of_table({"date": ["2024-01-01", "2024-01-02"], "close": closes}))
    assert prices.close.tolist() == [100.0012, 0.1]


def test_a_damaged_parquet_file_is_refused() -> None:
    whole = bytes_of_frame(prices_frame())
    for damaged in (whole[:-10], whole[: len(whole) // 2]):
        assert refusal_of(damaged).startswith("X: not a sound parquet file (")


def test_a_parquet_page_that_fails_its_checksum_is_refused() -> None:
    table = pa.table({"timestamp": [1_700_000_000, 1_700_000_001], "close": [1.5, 2.5]})
    sink = io.BytesIO()
    pq.write_table(
        table,
        sink,
        compression="none",
        use_dictionary=False,
        write_page_checksum=True,
        write_statistics=False,
    )
    whole = sink.getvalue()
    changed = whole.replace(np.float64(2.5).tobytes(), np.float64(2.25).tobytes())
    assert changed != whole
    assert refusal_of(changed).startswith("X: not a sound parquet file (")


@given(damage=st.lists(st.tuples(st.integers(min_value=0), st.integers(0, 255)), min_size=1, max_size=4))
def test_any_damage_to_a_parquet_file_gives_prices_or_one_line(damage: list[tuple[int, int]]) -> None:
    content = bytearray(SOUND_PARQUET)
    for position, value in damage:
        content[position % len(content)] = value
    line = refusal_or_sound_prices(bytes(content))
    assert line is None or line.startswith("X")
