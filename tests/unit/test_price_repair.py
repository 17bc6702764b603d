from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from toto_core.prices.repair import DifferingPricesError, describe_gaps, describe_jumps, in_time_order

DAY = timedelta(days=1)
MONDAY = datetime(2024, 1, 1)


def as_stamps(stamps: list[datetime]) -> npt.NDArray[np.datetime64]:
    return np.array(stamps, dtype="datetime64[ns]")


def test_rows_in_order_are_left_alone() -> None:
    stamps = as_stamps([MONDAY, MONDAY + DAY])
    ordered, prices, repairs = in_time_order(stamps, np.array([1.0, 2.0]))
    assert ordered.tolist() == stamps.tolist()
    assert prices.tolist() == [1.0, 2.0]
    assert repairs == ()


def test_rows_out_of_order_are_sorted_and_a_row_that_comes_again_is_kept_once() -> None:
    stamps = as_stamps([MONDAY + 2 * DAY, MONDAY, MONDAY + DAY, MONDAY, MONDAY])
    ordered, prices, repairs = in_time_order(stamps, np.array([3.0, 7.0, 2.0, 7.0, 7.0]))
    assert ordered.tolist() == as_stamps([MONDAY, MONDAY + DAY, MONDAY + 2 * DAY]).tolist()
    assert prices.tolist() == [7.0, 2.0, 3.0]
    assert repairs == ("rows out of time order: sorted", "2 duplicated timestamps: the last kept")


@given(days=st.lists(st.integers(min_value=0, max_value=9), min_size=1, max_size=200))
@example(days=[day % 3 for day in range(200)])
def test_of_any_number_of_duplicates_one_is_kept(days: list[int]) -> None:
    stamps = as_stamps([MONDAY + day * DAY for day in days])
    ordered, prices, _ = in_time_order(stamps, np.array(days) + 1.0)
    assert prices.tolist() == [day + 1.0 for day in sorted(set(days))]
    assert np.all(ordered[1:] > ordered[:-1])


@given(
    days=st.lists(st.integers(min_value=0, max_value=9), min_size=1, max_size=50), again=st.integers(0, 49)
)
def test_one_time_with_two_prices_is_never_decided(days: list[int], again: int) -> None:
    days = [*days, days[again % len(days)]]
    prices = np.append(np.array(days[:-1]) + 1.0, 99.0)
    with pytest.raises(DifferingPricesError) as refusal:
        in_time_order(as_stamps([MONDAY + day * DAY for day in days]), prices)
    assert refusal.value.stamp == as_stamps([MONDAY + days[-1] * DAY])[0]


def test_prices_of_five_times_or_a_fifth_are_told() -> None:
    stamps = as_stamps([MONDAY + i * DAY for i in range(5)])
    assert describe_jumps(stamps, np.array([1.0, 4.9, 1.0, 4.9, 1.0])) == ()
    assert describe_jumps(stamps, np.array([1.0, 5.0, 5.0, 1.0, -9.0])) == (
        "2 jumps of 5x or more, the first from 1 to 5 at 2024-01-02T00:00:00Z: a split, or a wrong decimal mark",
    )


def test_one_duplicate_is_counted_in_the_singular() -> None:
    *_, repairs = in_time_order(as_stamps([MONDAY, MONDAY]), np.array([2.0, 2.0]))
    assert repairs == ("1 duplicated timestamp: the last kept",)


def test_weekends_and_holidays_of_a_daily_series_are_not_gaps() -> None:
    days = [MONDAY + i * DAY for i in range(100) if i % 7 < 5]
    without_friday_and_monday = [day for day in days if day - MONDAY not in (11 * DAY, 14 * DAY)]
    assert describe_gaps(as_stamps(without_friday_and_monday)) == ()
    without_a_week = [day for day in days if not 14 * DAY <= day - MONDAY < 21 * DAY]
    assert describe_gaps(as_stamps(without_a_week)) == (
        "1 gap longer than 5 days left as they are, the longest 10 days after 2024-01-12T00:00:00Z",
    )


def test_a_missing_day_of_a_market_that_never_closes_is_a_gap() -> None:
    days = [MONDAY + i * DAY for i in range(100) if i not in (40, 60, 61)]
    assert describe_gaps(as_stamps(days)) == (
        "2 gaps longer than 1.5 days left as they are, the longest 3 days after 2024-02-29T00:00:00Z",
    )


def test_the_nights_of_an_hourly_series_are_gaps() -> None:
    hours = [MONDAY + day * DAY + timedelta(hours=hour) for day in range(5) for hour in range(14, 21)]
    assert describe_gaps(as_stamps(hours)) == (
        "4 gaps longer than 1.5 hours left as they are, the longest 18 hours after 2024-01-01T20:00:00Z",
    )


def test_a_step_of_more_than_three_centuries_is_a_gap() -> None:
    stamps = [datetime(1700, 1, 1) + i * DAY for i in range(10)]
    (gap,) = describe_gaps(as_stamps([*stamps, datetime(2200, 1, 1)]))
    assert gap.startswith("1 gap longer than 1.5 days left")


def test_one_point_has_no_gaps() -> None:
    assert describe_gaps(as_stamps([MONDAY])) == ()


@given(
    step_seconds=st.integers(min_value=1, max_value=40 * 86_400),
    missing=st.sets(st.integers(min_value=10, max_value=80), max_size=3),
)
def test_an_even_series_has_as_many_gaps_as_runs_of_missing_stamps(
    step_seconds: int, missing: set[int]
) -> None:
    kept = [i for i in range(100) if i not in missing]
    gaps = describe_gaps(as_stamps([MONDAY + timedelta(seconds=step_seconds * i) for i in kept]))
    runs = sum(1 for i in missing if i - 1 not in missing)
    assert (int(gaps[0].split()[0]) if gaps else 0) == runs
