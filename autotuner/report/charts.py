"""The charts of a symbol, for pages, reports and pictures alike: what they say, and figures as Plotly draws them.

Colour never stands alone: the shape of a marker or a word says the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from autotuner.report.figure_parts import Drawn, Figure
from autotuner.report.life_charts import importance, live, starts, timeline
from autotuner.report.proof_charts import latency, launches, pareto, speed
from autotuner.report.symbol_view import SymbolView


@dataclass(frozen=True, kw_only=True)
class Chart:
    """One chart: ``name`` for the page, ``title``, what it ``says`` in words, and Plotly's data and layout.

    Without a ``figure`` nothing was measured that could be drawn, and ``says`` tells what is missing.
    """

    name: str
    title: str
    says: str
    figure: Figure | None = None


def charts(view: SymbolView) -> tuple[Chart, ...]:
    """Every chart of a symbol, the most asked for first."""
    found = []
    for name, (title, draw) in CHARTS.items():
        says, figure = draw(view)
        found.append(Chart(name=name, title=title, says=says, figure=figure))
    return tuple(found)


CHARTS: Mapping[str, tuple[str, Callable[[SymbolView], Drawn]]] = {
    "speed": ("Speed beside eager fp32", speed),
    "pareto": ("Latency against drift", pareto),
    "latency": ("Latency of single calls", latency),
    "launches": ("Launches of the duel", launches),
    "timeline": ("Promotions", timeline),
    "live": ("Latency in production", live),
    "starts": ("Starting beside running", starts),
    "importance": ("Which settings matter", importance),
}
"""Titles and drawings by name."""
