"""Charts say in words what they draw, are figures that Plotly takes, and keep what was stored as text."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from plotly.graph_objects import Figure

from autotuner.report.charts import CHARTS, Chart, charts
from autotuner.report.figure_parts import text
from autotuner.report.html import json_block, plotly_source
from autotuner.report.proof_charts import front_of
from autotuner.report.symbol_view import MOST_POINTS, SymbolView, symbol_view, thinned
from autotuner.store import Store
from tests.support import seen_store
from tests.support.promoted_store import promotion


@pytest.fixture(scope="module")
def view(tmp_path_factory: pytest.TempPathFactory) -> SymbolView:
    store = tmp_path_factory.mktemp("seen") / "autotune.db"
    seen_store.tuned(store, "AMD")
    with Store(str(store)) as opened:
        return symbol_view(opened, "AMD")


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> SymbolView:
    """A symbol of which nothing but an empty promotion is stored."""
    store = tmp_path_factory.mktemp("bare") / "autotune.db"
    with Store(str(store)) as opened:
        empty = replace(promotion(), figures=type(promotion().figures)())
        opened.promote(empty)
        return symbol_view(opened, "AMD")


def by_name(view: SymbolView) -> dict[str, Chart]:
    return {chart.name: chart for chart in charts(view)}


def drawn(view: SymbolView, name: str) -> Figure:
    figure = by_name(view)[name].figure
    assert figure is not None
    return Figure(figure)  # raises for what Plotly does not know


@pytest.mark.parametrize("name", CHARTS)
def test_every_chart_is_drawn_with_words_beside_it(view: SymbolView, name: str) -> None:
    chart = by_name(view)[name]
    assert drawn(view, name).data
    assert chart.says.endswith(".")
    assert len(chart.says) > 20


@pytest.mark.parametrize("name", CHARTS)
def test_what_was_not_measured_is_said_and_not_drawn(bare: SymbolView, name: str) -> None:
    chart = by_name(bare)[name]
    assert chart.figure is None
    assert chart.says.endswith(".")


def test_the_speed_chart_has_the_stored_interval(view: SymbolView) -> None:
    promoted = next(trace for trace in drawn(view, "speed").data if trace.name == "promoted")
    ratio = view.promotion.figures.ratio
    assert ratio is not None
    assert promoted.x == (ratio.estimate,)
    assert promoted.error_x.array[0] == pytest.approx(ratio.high - ratio.estimate)
    assert promoted.error_x.arrayminus[0] == pytest.approx(ratio.estimate - ratio.low)
    assert "2.81x [2.74, 2.88]" in by_name(view)["speed"].says


def test_what_breaks_a_limit_is_told_by_its_shape_and_its_reason(view: SymbolView) -> None:
    found = {trace.name: trace for trace in drawn(view, "pareto").data}
    assert found["breaks a limit"].marker.symbol == "x"
    assert "drift of 3.000% is above the limit of 1.000%" in found["breaks a limit"].text[0]
    symbols = [trace.marker.symbol for trace in found.values() if trace.mode == "markers"]
    assert len(symbols) == len(set(symbols))


def test_the_share_of_calls_rises_to_all_of_them(view: SymbolView) -> None:
    curves = [trace for trace in drawn(view, "latency").data if trace.mode == "lines"]
    assert [curve.name for curve in curves] == ["eager fp32", "promoted"]
    for curve in curves:
        assert list(curve.x) == sorted(curve.x)
        assert list(curve.y) == sorted(curve.y)
        assert curve.y[-1] == 100


def test_many_calls_are_drawn_as_a_screen_can_show_them() -> None:
    calls = thinned([float(ms) for ms in range(5000)])
    assert len(calls) == MOST_POINTS
    assert (calls[0], calls[-1]) == (0.0, 4999.0)


def test_each_launch_is_a_point(view: SymbolView) -> None:
    assert drawn(view, "launches").data[0].y == view.promotion.figures.launch_ratios


def test_a_roll_back_is_a_mark_of_its_own(view: SymbolView) -> None:
    assert [trace.name for trace in drawn(view, "timeline").data] == [
        "promoted",
        "promoted, later rolled back",
    ]


def test_the_deadline_is_drawn_where_there_is_one(view: SymbolView) -> None:
    (line,) = drawn(view, "latency").layout.shapes
    assert (line.x0, line.label.text) == (3.5, "deadline 3.5 ms")


def test_text_that_was_stored_is_no_markup_in_a_chart(view: SymbolView) -> None:
    everything = json.dumps([chart.figure for chart in charts(view)])
    assert "<script>" not in everything
    assert "&lt;script&gt;" in everything
    assert text("a\x1b[31m\nb") == "a [31m b"


def test_data_of_a_page_cannot_end_its_element() -> None:
    said = json_block({"a": "</script><!--\u2028", "b": [math.inf, math.nan, 1.5]})
    assert "<" not in said
    assert "\u2028" not in said
    assert json.loads(said) == {"a": "</script><!--\u2028", "b": [None, None, 1.5]}


def test_the_library_that_draws_can_stand_in_a_page() -> None:
    assert "</script" not in plotly_source().lower()


@given(st.lists(st.tuples(st.floats(0, 9), st.floats(0, 9)), max_size=20))
def test_a_drawn_front_only_falls_and_nothing_lies_below_it(costs: list[tuple[float, float]]) -> None:
    front = front_of(costs)
    assert set(front) <= set(costs)
    assert all(one[0] < other[0] and one[1] > other[1] for one, other in itertools.pairwise(front))
    for first, second in costs:
        assert any(drawn[0] <= first and drawn[1] <= second for drawn in front)
