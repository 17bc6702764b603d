"""What makes a text of prices clear, what is repaired, and what is refused with its line."""

from __future__ import annotations

import gzip
import io
import re
import zipfile

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.support.price_texts import GOOD_CSV, days, read, refusal_of, refusal_or_sound_prices
from toto_core.prices.options import PriceOptions

DAYS = ["2024-01-01", "2024-01-02", "2024-01-03"]
KNOWN = "--time-column says which"


@pytest.mark.parametrize(
    "text",
    [
        "\ufeff" + GOOD_CSV,
        GOOD_CSV.replace("\n", "\r\n"),
        GOOD_CSV.replace("\n", "\r"),
        GOOD_CSV.replace("\n", "\n\n"),
        "\n  \n" + GOOD_CSV,
        GOOD_CSV.rstrip("\n"),
        GOOD_CSV + "\n\n",
        GOOD_CSV + "\x00\x00",
        GOOD_CSV + "\x1a",
        "sep=,\n" + GOOD_CSV,
        "# a comment\nhttps://prices.test/AMD\n" + GOOD_CSV,
        GOOD_CSV.replace("2024-01-02,11", '"2024-01-02","11"'),
        GOOD_CSV.replace("2024-01-02,11", " 2024-01-02 , 11 "),
        GOOD_CSV.replace("timestamp,close", " Timestamp ,CLOSE"),
        GOOD_CSV.replace("timestamp,close", "Date,Close/Last"),
        GOOD_CSV.replace("timestamp,close", "Date,Price"),
        GOOD_CSV.replace("timestamp,close", "when,4. close"),
        GOOD_CSV.replace("timestamp,close", "time,AMD"),
        GOOD_CSV.replace("timestamp,close\n", ""),
        GOOD_CSV.replace(",", ";"),
        GOOD_CSV.replace(",", "\t"),
        "sep=;\n" + GOOD_CSV.replace(",", ";"),
        GOOD_CSV.replace(",", "|"),
        GOOD_CSV.replace(",1", ",$1"),
        GOOD_CSV.replace(",1", ",\u20ac1"),
        GOOD_CSV.replace(",1", "T00:00:00Z,1"),
        GOOD_CSV.replace(",1", " 00:00:00+00,1"),
        GOOD_CSV.replace(",1", " 12:00 AM,1"),
        GOOD_CSV.replace("-0", "/0"),
        GOOD_CSV.replace("-0", "-"),
        GOOD_CSV.replace("-0", "0"),
        GOOD_CSV.replace("11", "1.1e1"),
        GOOD_CSV.replace("11", "+11."),
        GOOD_CSV.replace("2024-01-0", "0").replace(",1", "-Jan-2024,1"),
    ],
)
def test_ways_to_write_the_same_rows_give_the_same_prices(text: str) -> None:
    prices = read(text)
    assert days(prices) == DAYS
    assert prices.close.tolist() == [10.0, 11.0, 12.0]
    assert prices.notes == ()


def test_the_adjusted_close_is_preferred_and_that_is_said() -> None:
    prices = read("date,Close,Adj Close\n2024-01-01,10,5\n2024-01-02,11,5.5\n")
    assert prices.close.tolist() == [5.0, 5.5]
    assert prices.notes == ("column 'Adj Close' used rather than 'Close'",)


@pytest.mark.parametrize(
    "name",
    [
        "Adj Close**",
        "adj_close",
        "adjClose",
        "Adj. Close",
        "Close (Adj)",
        "5. adjusted close",
        "adjusted_close",
    ],
)
def test_the_adjusted_close_goes_by_many_names(name: str) -> None:
    assert read(f"date,close,{name}\n2024-01-01,9,5\n").close.tolist() == [5.0]


def test_an_option_names_another_column_in_any_case() -> None:
    text = "date,Close,Adj Close,Open\n2024-01-01,10,5,7\n"
    for name, price in (("close", 10.0), ("Open", 7.0), ("adj close", 5.0)):
        assert read(text, PriceOptions(price_column=name)).close.tolist() == [price]
    assert refusal_of(text, PriceOptions(price_column="vwap")).startswith(
        "X: --price-column 'vwap': no such column (separator ','; the columns are"
    )
    assert read(
        "1,2024-01-01,3\n2,2024-01-02,4\n", PriceOptions(price_column="3", time_column="2")
    ).close.tolist() == [
        3.0,
        4.0,
    ]


def test_the_time_column_that_tells_the_rows_apart_is_used() -> None:
    finer = read("date,datetime,close\n2024-01-01,2024-01-01T10:00,1\n2024-01-01,2024-01-01T11:00,2\n")
    assert finer.stamps.astype("datetime64[h]").astype(str).tolist() == ["2024-01-01T10", "2024-01-01T11"]
    fetched = read("timestamp,date,close\n2024-06-01T10:00Z,2024-01-01,1\n2024-06-01T10:00Z,2024-01-02,2\n")
    assert days(fetched) == ["2024-01-01", "2024-01-02"]
    joined = read("date,time,close\n2024.01.01,09:30,1\n2024.01.01,09:31,2\n")
    assert joined.stamps.astype("datetime64[m]").astype(str).tolist() == [
        "2024-01-01T09:30",
        "2024-01-01T09:31",
    ]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "X: the file is empty"),
        ("\n \n", "X: the file is empty"),
        ("timestamp,close\n", "X: empty: there is no row of prices"),
        (
            "time,volume\n2024-01-01,1\n",
            "X: no price column by a name we know, such as close: --price-column says",
        ),
        ("x,close\n0,1\n", "X: no column of times by a name we know, such as date: --time-column says which"),
        (
            "date,close,Close\n2024-01-01,1,2\n",
            "X: columns 'close' and 'Close' may both be the prices: --price-column",
        ),
        (
            "date,adj close,adjclose\n2024-01-01,1,2\n",
            "X: columns 'adj close' and 'adjclose' may both be the prices",
        ),
        (GOOD_CSV + "2024-01-04\n2024-01-05,1\n", "X, line 5: the header has 2 fields, this line 1"),
        (GOOD_CSV + "2024-01-04,1,000\n", "X, line 5: the header has 2 fields, this line 3"),
        ("1,2,3\n4,5,6\n", "X: no price column by a name we know"),
        (
            "2024-01-01,5,9\n2024-01-02,6,9\n",
            "X: no header, and its 3 columns are not a time with open, high, low",
        ),
        ("<!DOCTYPE html><p>429</p>", "X: a web page"),
        ('{"chart": []}', "X: JSON"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "X: a Git LFS pointer"),
        (b"%PDF-1.7", "X: a PDF document"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1", "X: an Excel workbook of the old kind: save it as CSV"),
        (b"SQLite format 3\x00", "X: an SQLite database"),
        (b"\x80\x04\x95", "X: a Python pickle, which is never loaded"),
    ],
)
def test_what_is_no_table_of_prices_is_refused_with_its_reason(content: str | bytes, reason: str) -> None:
    assert refusal_of(content).startswith(reason)


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        ("abc", "'abc' is not a number"),
        ("inf", "'inf' is not finite"),
        ("-Infinity", "'-Infinity' is not finite"),
        ("1e999", "'1e999' is too large"),
        ("0", "0.0 is not above zero: --allow-negative allows it"),
        ("-0.0", "-0.0 is not above zero: --allow-negative allows it"),
        ("-3", "-3.0 is not above zero: --allow-negative allows it"),
        ("1e-999", "0.0 is not above zero: --allow-negative allows it"),
        ("1_000", "'1_000' is not a number"),
        ("0x10", "'0x10' is not a number"),
        ("nan(1)", "'nan(1)' is not a number"),
        ("\u0661\u0662", "'\u0661\u0662' is not a number"),
        ("1 2", "'1 2' is not a number"),
        (".1000.0000", "'.1000.0000' is not a number"),
        ('",5,5"', "',5,5' is not a number"),
        ("1.2M", "'1.2M' is not a number"),
        ('"1\n2"', r"'1\n2' is not a number"),
        ("x" * 100, "'" + "x" * 56 + "... is not a number"),
    ],
)
def test_a_bad_price_is_refused_with_its_line(cell: str, reason: str) -> None:
    assert refusal_of(f"{GOOD_CSV}2024-01-04,{cell}\n2024-01-05,13\n") == f"X, line 5: close {reason}"


def test_rows_without_a_price_are_left_out_up_to_one_in_twenty() -> None:
    rows = "".join(f"2024-01-{day:02},{day}\n" for day in range(1, 21))
    for blank in ("", "null", "NaN", "n/a", "-"):
        prices = read(f"date,close\n{rows}2024-01-21,{blank}\n")
        assert prices.close.size == 20
        assert prices.notes == ("1 row without close left out",)
    assert refusal_of(f"date,close\n{rows}2024-01-21,\n2024-01-22,null\n") == (
        "X, line 22: close is blank, as in 2 of 22 rows (9%, and at most 5% may lack one): "
        "--price-column names another column"
    )


def test_rows_that_are_blank_throughout_are_left_out_and_said() -> None:
    assert read(GOOD_CSV + ",\n,\n").notes == ("2 blank rows left out",)
    assert refusal_of(GOOD_CSV + ",13\n") == "X, line 5: timestamp is blank"


def test_an_adjusted_close_that_is_blank_throughout_gives_way_to_the_close() -> None:
    prices = read("date,close,adj close\n2024-01-01,1,\n2024-01-02,2,\n")
    assert prices.close.tolist() == [1.0, 2.0]
    assert prices.notes == ("column 'adj close' is blank throughout: 'close' used",)


def test_a_bad_adjusted_close_is_named_by_its_own_column_and_says_what_else_there_is() -> None:
    assert refusal_of("date,close,Adj Close\n2024-01-01,1,x\n") == "X, line 2: Adj Close 'x' is not a number"
    assert refusal_of("date,close,Adj Close\n2024-01-01,1,-2\n") == (
        "X, line 2: Adj Close -2.0 is not above zero: --price-column 'close' reads another column, "
        "--allow-negative allows it"
    )


def test_prices_of_zero_and_below_are_read_when_they_are_allowed() -> None:
    prices = read("date,close\n2020-04-20,-37.63\n2020-04-21,0\n", PriceOptions(allow_negative=True))
    assert prices.close.tolist() == [-37.63, 0.0]


def test_one_time_with_two_prices_is_refused_and_with_one_price_repaired() -> None:
    assert refusal_of(GOOD_CSV + "2024-01-02,99\n").startswith(
        "X, line 5: 2024-01-02T00:00:00Z is there twice with different prices (first in X, line 3): --time-column"
    )
    again = read(GOOD_CSV + "2024-01-02,11\n")
    assert again.close.tolist() == [10.0, 11.0, 12.0]
    assert again.notes == ("rows out of time order: sorted", "1 duplicated timestamp: the last kept")


def test_a_file_of_several_symbols_gives_the_rows_of_one() -> None:
    text = "symbol,date,close\nAMD,2024-01-01,1\nMSFT,2024-01-01,7\nAMD,2024-01-02,2\nmsft,2024-01-02,oops\n"
    prices = read(text)
    assert prices.close.tolist() == [1.0, 2.0]
    assert prices.notes == ("2 rows of AMD among those of 1 other symbol",)
    assert refusal_of(text, symbol="MSFT") == "X, line 5: close 'oops' is not a number"
    assert refusal_of(text, symbol="IBM") == "X: holds 2 symbols (AMD, MSFT), and not IBM"
    assert read("pair,date,close\nBTC/USDT,2024-01-01,1\n", symbol="BTCUSDT").notes == ()
    assert read("pair,date,close\nETHUSDT,2024-01-01,1\n").notes == ("column 'pair' says 'ETHUSDT'",)


def test_two_rows_of_headers_give_the_column_of_the_symbol() -> None:
    text = "Price,Close,Close,High\nTicker,AMD,MSFT,AMD\nDate,,,\n2024-01-01,1,7,9\n2024-01-02,2,8,9\n"
    assert read(text).close.tolist() == [1.0, 2.0]
    assert read(text, symbol="MSFT").close.tolist() == [7.0, 8.0]
    assert refusal_of(text, symbol="IBM") == "X: holds 2 symbols (AMD, MSFT), and not IBM"
    by_symbol = "Ticker,AMD,AMD\nPrice,High,Close\nDate,,\n2024-01-01,9,1\n"
    assert read(by_symbol).close.tolist() == [1.0]
    assert read(text.replace("Date,,,\n", "")).close.tolist() == [1.0, 2.0]


def test_lines_are_counted_as_an_editor_shows_them() -> None:
    text = 'timestamp,close,note\r\n\r\n2024-01-01,1,"two\r\nlines"\r\n\r\n2024-01-02,oops,"and\nmore"\r\n'
    assert refusal_of(text) == "X, line 6: close 'oops' is not a number"
    assert (
        refusal_of("# one\n# two\n" + GOOD_CSV + "2024-01-04,?\n") == "X, line 7: close '?' is not a number"
    )


def test_a_last_line_that_names_its_source_is_left_out_and_said() -> None:
    prices = read(GOOD_CSV + '"Downloaded from a site as of 01-04-2024"\n')
    assert prices.close.size == 3
    assert prices.notes == (
        "the last line, '\"Downloaded from a site as of 01-04-2024\"', holds no row: left out",
    )


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-8-sig", "cp1252", "utf-32"])
def test_any_common_encoding_is_read(encoding: str) -> None:
    text = (
        GOOD_CSV.replace("close", "close,Er\u00f6ffnung")
        .replace(",1", ",5,1")
        .replace("close,E", "E\u00f6,close,E")
    )
    text = "timestamp,close,Er\u00f6ffnung\n2024-01-01,10,1\n2024-01-02,11,1\n2024-01-03,12,1\n"
    assert read(text.encode(encoding)).close.tolist() == [10.0, 11.0, 12.0]


def test_archives_are_known_by_their_bytes_whatever_their_name() -> None:
    whole = gzip.compress(GOOD_CSV.encode())
    assert read(whole).close.tolist() == [10.0, 11.0, 12.0]
    assert read(gzip.compress(GOOD_CSV.encode()) + gzip.compress(b"2024-01-04,13\n")).close.size == 4
    for damaged in (whole[: len(whole) // 2], whole[:-1], whole + b"tail"):
        assert refusal_of(damaged).startswith("X: not a sound gzip file (")
    assert read(zipped({"AMD.csv": GOOD_CSV})).close.size == 3
    assert (
        refusal_of(zipped({"a.csv": "", "b.csv": ""}))
        == "X: a zip archive of 2 files: unpack it and name one"
    )
    assert refusal_of(zipped({"xl/workbook.xml": ""})) == "X: an Excel workbook: save it as CSV"
    assert refusal_of(zipped({"AMD.csv": GOOD_CSV})[:-9]).startswith("X: not a sound zip archive (")


def test_an_archive_that_unpacks_to_far_more_than_prices_do_is_refused() -> None:
    text = GOOD_CSV + "0" * (17 << 20)
    for bomb in (gzip.compress(text.encode()), zipped({"AMD.csv": text}), gzip.compress(zipped({"a": text}))):
        assert len(bomb) < 80_000
        assert refusal_of(bomb) == (
            "X: unpacks to more than 16 MiB, which no table of prices of its size does: "
            "unpack it yourself if it is one"
        )


def zipped(files: dict[str, str]) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return sink.getvalue()


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
    expected = next(number for number, line in enumerate(lines, start=1) if line.endswith("?"))
    assert refusal_of(line_end.join(lines)) == f"X, line {expected}: close '?' is not a number"


@given(content=st.binary(max_size=300))
@example(content=b"timestamp,close\n2024-01-01,\x00\n")
@example(content=b'timestamp,close\n2024-01-01,"' + b"1" * 200_000 + b'"\n')
@example(content=b"timestamp,close\n" + b"1" * 5_000 + b",1\n")
@example(content=b"PAR1PAR1")
@example(content=b"\x1f\x8b")
@example(content=b"PK\x03\x04")
def test_any_bytes_give_prices_or_one_line(content: bytes) -> None:
    message = refusal_or_sound_prices(content)
    assert message is None or message.startswith("X")


@given(tail=st.text(alphabet='timestamp,close\n\r"0123456789-:+TZe. ;$', max_size=80))
def test_any_tail_after_good_rows_gives_prices_or_one_line(tail: str) -> None:
    message = refusal_or_sound_prices((GOOD_CSV + tail).encode())
    assert message is None or message.startswith("X")


@given(damage=st.lists(st.tuples(st.integers(min_value=0), st.integers(0, 255)), min_size=1, max_size=4))
def test_any_damage_to_a_gzip_file_gives_prices_or_one_line(damage: list[tuple[int, int]]) -> None:
    content = bytearray(gzip.compress(GOOD_CSV.encode(), mtime=0))
    for position, value in damage:
        content[position % len(content)] = value
    message = refusal_or_sound_prices(bytes(content))
    assert message is None or message.startswith("X")


@given(
    damage=st.lists(st.tuples(st.integers(min_value=0), st.integers(0, 255)), min_size=1, max_size=3),
    rows=st.integers(min_value=3, max_value=12),
)
def test_a_byte_that_changes_a_price_is_refused_or_read_as_it_now_stands(
    damage: list[tuple[int, int]], rows: int
) -> None:
    content = bytearray(
        b"date,close\n" + b"".join(b"2024-01-%02d,1%d.25\n" % (i + 1, i) for i in range(rows))
    )
    for position, value in damage:
        content[position % len(content)] = value
    try:
        text = content.decode().rstrip("\x00\x1a \r\n")  # left behind at a file's end: no part of a cell
    except UnicodeDecodeError:
        text = ""
    if refusal_or_sound_prices(bytes(content)) is None and text.startswith("date,close\n"):
        standing = [line.split(",")[1] for line in re.split(r"[\r\n]+", text)[1:] if line.count(",") == 1]
        prices = read(bytes(content)).close.tolist()
        assert {np.float64(price) for price in prices} <= {_value(cell) for cell in standing}


def _value(cell: str) -> float:
    try:
        return float(cell.strip().replace(",", "").lstrip("$"))
    except ValueError:
        return -1.0
