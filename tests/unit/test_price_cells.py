from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from toto_core.prices.cells import parse_prices, parse_stamps

# Shapes of times, many of which do not exist, such as the 39th of month 19.
DATE = r"[0-9]{4}-[01][0-9]-[0-3][0-9]"
CLOCK = r"([T ][0-2][0-9]:[0-6][0-9](:[0-6][0-9])?"
OFFSET = r"([+-][0-2][0-9]:[0-6][0-9])?)?"

stamps_in_range = st.datetimes(min_value=datetime(1700, 1, 1), max_value=datetime(2261, 1, 1))


@given(
    stamp=stamps_in_range, separator=st.sampled_from("T "), zone=st.sampled_from(["", "Z", "+00:00", "+00"])
)
def test_every_iso_time_is_read_as_utc(stamp: datetime, separator: str, zone: str) -> None:
    text = stamp.isoformat(sep=separator) + zone
    assert parse_stamps([text])[0] == np.datetime64(stamp, "ns")


@given(text=st.from_regex(DATE + CLOCK + OFFSET, fullmatch=True))
@example(text="2024-02-29")
def test_a_time_is_accepted_only_where_python_agrees(text: str) -> None:
    stamp = parse_stamps([text])[0]
    if np.isnat(stamp):
        return
    expected = datetime.fromisoformat(text)
    expected = expected.replace(tzinfo=UTC) if expected.tzinfo is None else expected.astimezone(UTC)
    assert stamp == np.datetime64(expected.replace(tzinfo=None), "ns")


@given(
    cells=st.lists(st.sampled_from(["2024-01-01", "2024-01-01T00:00:00.123456789Z", "1704067200", "x", ""]))
)
def test_a_time_means_the_same_whatever_stands_beside_it(cells: list[str]) -> None:
    alone = [parse_stamps([cell])[0] for cell in cells]
    np.testing.assert_array_equal(parse_stamps(cells), np.array(alone, dtype="datetime64[ns]"))


@given(price=st.floats(min_value=0, exclude_min=True, allow_infinity=False))
def test_every_float_is_read_exactly(price: float) -> None:
    assert parse_prices([repr(price)])[0] == price


@given(text=st.one_of(st.text(max_size=8), st.text(alphabet="0123456789.eE+-_ ", max_size=8)))
@example(text="1_000")
@example(text="\u0661")
def test_a_number_is_accepted_only_when_it_is_plain(text: str) -> None:
    value = parse_prices([text])[0]
    if np.isnan(value):
        return
    assert set(text) <= set("0123456789.eE+-")
    assert value == float(text)
