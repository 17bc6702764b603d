from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotuner.measurement.outcome import Interval
from autotuner.report.interval_bars import BarScale, ratio_scale

RATIO = st.floats(1e-6, 1e6)


def interval(*values: float) -> Interval:
    low, estimate, high = sorted(values)
    return Interval(estimate=estimate, low=low, high=high)


def test_ends_estimate_and_mark_are_drawn_where_they_lie() -> None:
    scale = BarScale(low=0.0, high=10.0, mark=1.0, width=11)
    assert scale.bar(interval(3.0, 5.0, 8.0)) == " ┊ ├─●──┤  "
    assert scale.bar(interval(0.0, 1.0, 2.0)) == "├●┤        "


def test_a_terminal_without_utf_8_gets_plain_characters() -> None:
    scale = BarScale(low=0.0, high=10.0, mark=1.0, width=11, ascii_only=True)
    assert scale.bar(interval(3.0, 5.0, 8.0)) == " | [-o--]  "


def test_half_as_fast_and_twice_as_fast_lie_equally_far_from_one() -> None:
    scale = BarScale(low=0.5, high=2.0, mark=1.0, width=21, logarithmic=True)
    assert scale.bar(interval(2.0, 2.0, 2.0)) == " " * 10 + "┊" + " " * 9 + "●"
    assert scale.bar(interval(0.5, 0.5, 0.5)) == "●" + " " * 9 + "┊" + " " * 10


@given(st.lists(st.tuples(RATIO, RATIO, RATIO), min_size=1, max_size=9), st.booleans())
def test_bars_of_one_scale_are_equally_wide_whatever_was_measured(
    given: list[tuple[float, float, float]], ascii_only: bool
) -> None:
    ratios = [interval(*values) for values in given]
    scale = ratio_scale(ratios, width=20, ascii_only=ascii_only)
    for bar in map(scale.bar, ratios):
        assert len(bar) == 20
        assert bar.count("o" if ascii_only else "●") == 1


@pytest.mark.parametrize(("low", "high", "width"), [(1.0, 1.0, 20), (2.0, 1.0, 20), (0.0, 1.0, 4)])
def test_a_scale_that_holds_nothing_is_refused(low: float, high: float, width: int) -> None:
    with pytest.raises(ValueError, match="no scale"):
        BarScale(low=low, high=high, mark=low, width=width)
