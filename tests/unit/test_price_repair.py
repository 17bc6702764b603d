from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
import numpy.typing as npt
from hypothesis import example, given
from hypothesis import strategies as st

from toto_core.prices.repair import describe_gaps, in_time_order

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


def test_rows_out_of_order_are_sorted_and_the_last_of_a_duplicate_wins() -> None:
    stamps = as_stamps([MONDAY + 2 * DAY, MONDAY, MONDAY + DAY, MONDAY, MONDAY])
    ordered, prices, repairs = in_time_order(stamps, np.array([3.0, 1.0, 2.0, 9.0, 7.0]))
    assert ordered.tolist() == as_stamps([MONDAY, MONDAY + DAY, MONDAY + 2 * DAY]).tolist()
    assert prices.tolist() == [7.0, 2.0, 3.0]
    assert repairs == ("rows out of time order: sorted", "2 duplicated timestamps: the last kept")


@given(days=st.lists(st.integers(min_value=0, max_value=9), min_size=1, max_size=200))
@example(days=[day % 3 for day in range(200)])
def test_of_any_number_of_duplicates_the_last_row_is_kept(days: list[int]) -> None:
    stamps = as_stamps([MONDAY + day * DAY for day in days])
    ordered, prices, _ = in_time_order(stamps, np.arange(1.0, len(days) + 1))
    last_row = {day: row for row, day in enumerate(days, start=1)}
    assert prices.tolist() == [last_row[day] for day in sorted(last_row)]
    assert np.all(ordered[1:] > ordered[:-1])


def test_one_duplicate_is_counted_in_the_singular() -> None:
    *_, repairs = in_time_order(as_stamps([MONDAY, MONDAY]), np.array([1.0, 2.0]))
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
