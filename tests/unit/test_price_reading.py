from __future__ import annotations

import gzip

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from toto_core.prices.columns import PriceTable, SeriesError
from toto_core.prices.reading import SUFFIXES, read_columns

GOOD_CSV = "timestamp,close\n2024-01-01,10\n2024-01-02,11\n2024-01-03,12\n"
NO_TIME = ": no column 'timestamp', 'datetime', 'date' or 'time'"


def read_csv(text: str | bytes) -> PriceTable:
    return read_columns(text.encode() if isinstance(text, str) else text, ".csv", "X")


def refusal_or_sound_columns(content: bytes, suffix: str) -> str | None:
    try:
        table = read_columns(content, suffix, "X")
    except SeriesError as refusal:
        (line,) = str(refusal).splitlines()
        return line
    assert table.stamps.shape == table.prices.shape
    assert table.stamps.size > 0
    assert not np.any(np.isnat(table.stamps))
    assert np.all(np.isfinite(table.prices) & (table.prices > 0))
    return None


def refusal_of(content: str | bytes, suffix: str = ".csv") -> str:
    with pytest.raises(SeriesError) as refusal:
        read_columns(content.encode() if isinstance(content, str) else content, suffix, "X")
    message = str(refusal.value)
    assert len(message.splitlines()) == 1
    return message


@pytest.mark.parametrize(
    "text",
    [
        "\ufeff" + GOOD_CSV,
        GOOD_CSV.replace("\n", "\r\n"),
        GOOD_CSV.replace("\n", "\r"),
        GOOD_CSV.replace("\n", "\n\n"),
        "\n  \n" + GOOD_CSV,
        GOOD_CSV.rstrip("\n"),
        GOOD_CSV.replace("2024-01-02,11", '"2024-01-02","11"'),
        GOOD_CSV.replace("2024-01-02,11", " 2024-01-02 , 11 "),
        GOOD_CSV.replace("timestamp,close", " Timestamp ,CLOSE"),
        GOOD_CSV.replace("timestamp", "Date"),
        GOOD_CSV.replace("timestamp", "DateTime"),
        GOOD_CSV.replace("timestamp", "time"),
        GOOD_CSV.replace("2024-01-02", "2024-01-02T00:00:00Z"),
        GOOD_CSV.replace("2024-01-02", "2024-01-02 00:00:00+00:00"),
        GOOD_CSV.replace("2024-01-02", "2024-01-01 19:00:00-05"),
        GOOD_CSV.replace("2024-01-02", "2024-01-02T05:30:00.000+0530"),
        GOOD_CSV.replace("2024-01-02", "1704153600"),
        GOOD_CSV.replace("2024-01-02", "1704153600000"),
        GOOD_CSV.replace("11", "1.1e1"),
        GOOD_CSV.replace("11", "+11."),
    ],
)
def test_ways_to_write_the_same_rows_give_the_same_columns(text: str) -> None:
    table = read_csv(text)
    assert table.stamps.astype("datetime64[D]").astype(str).tolist() == [
        "2024-01-01",
        "2024-01-02",
        "2024-01-03",
    ]
    assert table.prices.tolist() == [10.0, 11.0, 12.0]
    assert table.columns.notices == ()


def test_the_adjusted_close_is_preferred_and_that_is_said() -> None:
    table = read_csv("date,Close,Adj Close\n2024-01-01,10,5\n2024-01-02,11,5.5\n")
    assert table.prices.tolist() == [5.0, 5.5]
    assert table.columns.notices == ("column 'adj close' used rather than 'close'",)


def test_the_adjusted_close_alone_is_enough() -> None:
    assert read_csv("date,adj_close\n2024-01-01,5\n").columns.notices == ()


def test_the_finer_time_column_is_used_when_there_are_several() -> None:
    table = read_csv("date,datetime,close\n2024-01-01,2024-01-01T10:00,1\n2024-01-01,2024-01-01T11:00,2\n")
    assert table.stamps.astype("datetime64[h]").astype(str).tolist() == ["2024-01-01T10", "2024-01-01T11"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", ": the file is empty"),
        ("\n \n", ": the file is empty"),
        ("timestamp,close\n", ": empty: there is no row of prices"),
        ("time,price\n0,1\n", ": no column 'close' or 'adj close' (the columns are 'time, price')"),
        ("time;close\n0;1\n", ": no column 'close' or 'adj close' (the columns are 'time;close')"),
        ("day,close\n0,1\n", f"{NO_TIME} (the columns are 'day, close')"),
        ("date,time,close\n0,1,2\n", ": columns 'date' and 'time': join them into one column 'timestamp'"),
        ("time,close,Close\n0,1,2\n", ": column 'close' is there 2 times: keep one"),
        ("time,TIME,close\n0,1,2\n", ": column 'time' is there 2 times: keep one"),
        ("time,adj close,adj_close\n0,1,2\n", ": column 'adj close' is there 2 times: keep one"),
        ("time,adj close,adjclose\n0,1,2\n", ": columns 'adj close' and 'adjclose' say the same: keep one"),
        (GOOD_CSV + "2024-01-04\n", ", line 5: the header has 2 fields, this line 1"),
        (GOOD_CSV + "2024-01-04,1,000\n", ", line 5: the header has 2 fields, this line 3"),
        (GOOD_CSV + '"2024,1\n2024,2\n', ", line 5: not well-formed CSV (unexpected end of data)"),
        (GOOD_CSV.encode() + b"2024-01-04,\xff\n", ", line 5: not UTF-8 text: save the file as UTF-8"),
        (GOOD_CSV.encode("utf-16"), ", line 1: not UTF-8 text: save the file as UTF-8"),
    ],
)
def test_a_malformed_csv_is_refused_with_its_reason(content: str | bytes, reason: str) -> None:
    assert refusal_of(content) == f"X{reason}"


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        ("abc", "'abc' is not a number"),
        ("", "is blank"),
        ("  ", "is blank"),
        ("nan", "'nan' is not a number"),
        ("null", "'null' is not a number"),
        ("inf", "'inf' is not finite"),
        ("-Infinity", "'-Infinity' is not finite"),
        ("1e999", "'1e999' is too large"),
        ("0", "'0' is not above zero"),
        ("-0.0", "'-0.0' is not above zero"),
        ("-3", "'-3' is not above zero"),
        ("1e-999", "'1e-999' is not above zero"),
        ("1_000", "'1_000' is not a number"),
        ('"1,000"', "'1,000' is not a number"),
        ("$5", "'$5' is not a number"),
        ("0x10", "'0x10' is not a number"),
        ("\u0661\u0662", "'\u0661\u0662' is not a number"),
        ("1 2", "'1 2' is not a number"),
        ('"1\n2"', r"'1\n2' is not a number"),
        ("x" * 100, "'" + "x" * 56 + "... is not a number"),
    ],
)
def test_a_bad_price_is_refused_with_its_line(cell: str, reason: str) -> None:
    message = refusal_of(f"{GOOD_CSV}2024-01-04,{cell}\n2024-01-05,13\n")
    assert message == f"X, line 5: close {reason}"


@pytest.mark.parametrize(
    "cell",
    [
        "soon", "now", "today", "NaT", "2024", "20240104", "2024-1-4", "04/01/2024", "01-04-2024", "2024-01",
        "2024-W01-1", "2024-01-04T10", "17041536", "170415360", "17041536000", "1704153600.5", "-1704153600",
        "2024-01-04T00:00:00.1234567891", "\u0662024-01-04", "2024-01-04 10:00 EST",
    ],
)  # fmt: skip
def test_a_cell_that_is_not_a_time_is_refused_with_its_line(cell: str) -> None:
    message = refusal_of(f"{GOOD_CSV}{cell},13\n")
    assert message.startswith(f"X, line 5: timestamp {cell!r} is not an ISO date")


@pytest.mark.parametrize(
    "cell",
    [
        "2023-02-29", "2024-13-01", "2024-01-04T24:00", "2024-01-04T10:61", "2024-01-04T10:00:60",
        "2024-01-04T10:00+24:00", "0000-01-01", "0001-01-01", "1677-01-01", "2263-01-01", "9999999999",
        "9999999999999",
    ],
)  # fmt: skip
def test_a_time_that_does_not_exist_or_does_not_fit_is_refused(cell: str) -> None:
    message = refusal_of(f"{GOOD_CSV}{cell},13\n")
    assert message == f"X, line 5: timestamp {cell!r} is not an existing time between the years 1678 and 2261"


def test_a_blank_time_is_refused() -> None:
    assert refusal_of(GOOD_CSV + ",13\n") == "X, line 5: timestamp is blank"


def test_a_bad_adjusted_close_is_named_by_its_own_column() -> None:
    assert refusal_of("date,close,Adj Close\n2024-01-01,1,x\n") == "X, line 2: adj close 'x' is not a number"


def test_lines_are_counted_as_an_editor_shows_them() -> None:
    text = 'timestamp,close,note\r\n\r\n2024-01-01,1,"two\r\nlines"\r\n\r\n2024-01-02,oops,"and\nmore"\r\n'
    assert refusal_of(text) == "X, line 6: close 'oops' is not a number"


def test_a_gzip_file_of_several_members_is_read_whole() -> None:
    content = gzip.compress(GOOD_CSV.encode()) + gzip.compress(b"2024-01-04,13\n")
    assert read_columns(content, ".csv.gz", "X").prices.tolist() == [10.0, 11.0, 12.0, 13.0]


def test_a_damaged_gzip_file_is_refused() -> None:
    whole = gzip.compress(GOOD_CSV.encode() * 50)
    for damaged in (whole[: len(whole) // 2], whole[:-1], GOOD_CSV.encode(), whole + b"tail"):
        assert refusal_of(damaged, ".csv.gz").startswith("X: not a sound gzip file (")
    assert refusal_of(b"", ".csv.gz") == "X: the file is empty"


@given(
    rows=st.integers(min_value=1, max_value=30),
    data=st.data(),
    blank_lines=st.integers(min_value=0, max_value=3),
    line_end=st.sampled_from(["\n", "\r\n", "\r"]),
)
def test_the_line_of_the_one_bad_cell_is_named(
    rows: int, data: st.DataObject, blank_lines: int, line_end: str
) -> None:
    bad = data.draw(st.integers(min_value=0, max_value=rows - 1))
    lines = [""] * blank_lines + ["time,close"]
    for i in range(rows):
        lines += [f"{1_700_000_000 + i},{'?' if i == bad else '1.5'}"] + [""] * (i % 2)
    content = line_end.join(lines).encode()
    expected = next(number for number, line in enumerate(lines, start=1) if line.endswith("?"))
    assert refusal_of(content) == f"X, line {expected}: close '?' is not a number"


@given(content=st.binary(max_size=300), suffix=st.sampled_from(SUFFIXES))
@example(content=b"timestamp,close\n2024-01-01,\x00\n", suffix=".csv")
@example(content=b'timestamp,close\n2024-01-01,"' + b"1" * 200_000 + b'"\n', suffix=".csv")
@example(content=b"timestamp,close\n" + b"1" * 5_000 + b",1\n", suffix=".csv")
def test_any_bytes_give_prices_or_one_line(content: bytes, suffix: str) -> None:
    message = refusal_or_sound_columns(content, suffix)
    assert message is None or message.startswith("X")


@given(tail=st.text(alphabet='timestamp,close\n\r"0123456789-:+TZe. ', max_size=80))
def test_any_tail_after_good_rows_gives_prices_or_one_line(tail: str) -> None:
    message = refusal_or_sound_columns((GOOD_CSV + tail).encode(), ".csv")
    assert message is None or message.startswith("X, line ")


@given(damage=st.lists(st.tuples(st.integers(min_value=0), st.integers(0, 255)), min_size=1, max_size=4))
def test_any_damage_to_a_gzip_file_gives_prices_or_one_line(damage: list[tuple[int, int]]) -> None:
    content = bytearray(gzip.compress(GOOD_CSV.encode(), mtime=0))
    for position, value in damage:
        content[position % len(content)] = value
    message = refusal_or_sound_columns(bytes(content), ".csv.gz")
    assert message is None or message.startswith("X: ")
