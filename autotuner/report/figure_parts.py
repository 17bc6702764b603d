"""Parts of a Plotly figure as plain values: axes, points, curves, limits and bands, and texts that stay text."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

from autotuner.measurement.outcome import Interval
from autotuner.report.tables import plain

# Okabe and Ito's colours, which the colour-blind tell apart; each has 3:1 or more on white and on near-black.
WINNER, REFERENCE, OTHER, RULED_OUT = "#0072B2", "#7F7F7F", "#009E73", "#949494"
LIMIT = "#D55E00"

Figure = dict[str, Any]
"""A trace, a layout, or both under ``data`` and ``layout``."""
Drawn = tuple[str, Figure | None]
"""What a chart says, and its figure, None where nothing was measured that could be drawn."""
SPEED_AXIS = "speed, eager fp32 is 1x"
_LONGEST_TEXT = 120


def layout(x_title: str, y_title: str) -> Figure:
    """Two axes with their titles; colours of text and grid are the page's."""
    return {
        "autosize": True,
        "margin": {"l": 56, "r": 16, "t": 8, "b": 48},
        "hovermode": "closest",
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "font": {"size": 12}},
        "xaxis": {"title": {"text": x_title, "font": {"size": 13}}, "automargin": True},
        "yaxis": {"title": {"text": y_title, "font": {"size": 13}}, "automargin": True},
        "shapes": [],
        "annotations": [],
    }


def points(x: Sequence[Any], y: Sequence[Any], *, name: str, color: str, symbol: str) -> Figure:
    """Markers of one kind, told apart by shape as well as by colour."""
    marker = {"color": color, "symbol": symbol, "size": 11, "line": {"width": 1.5, "color": color}}
    return {"type": "scatter", "mode": "markers", "x": [*x], "y": [*y], "name": text(name), "marker": marker}


def curve(
    x: Sequence[Any], y: Sequence[Any], *, name: str, color: str, dash: str = "solid", shape: str = "linear"
) -> Figure:
    """A line through points."""
    line = {"color": color, "dash": dash, "shape": shape, "width": 2}
    return {"type": "scatter", "mode": "lines", "x": [*x], "y": [*y], "name": text(name), "line": line}


def bars(names: Sequence[str], values: Sequence[float], *, colors: Sequence[str] | str) -> Figure:
    """One horizontal bar a name, the first on top where the axis runs backwards."""
    color = colors if isinstance(colors, str) else [*colors]
    return {
        "type": "bar",
        "orientation": "h",
        "x": [*values],
        "y": [text(name) for name in names],
        "marker": {"color": color},
    }


def whiskers(intervals: Sequence[Interval]) -> Figure:
    """Both sides of intervals, as error bars."""
    return {
        "type": "data",
        "symmetric": False,
        "array": [each.high - each.estimate for each in intervals],
        "arrayminus": [each.estimate - each.low for each in intervals],
        "thickness": 2,
        "width": 6,
    }


def limit_line(*, x: float | None = None, y: float | None = None) -> Figure:
    """A dashed line over the whole chart at one place of an axis."""
    axis = (
        {"x0": x, "x1": x, "y0": 0, "y1": 1, "yref": "paper"}
        if y is None
        else {"y0": y, "y1": y, "x0": 0, "x1": 1, "xref": "paper"}
    )
    return {"type": "line", "line": {"color": LIMIT, "dash": "dash", "width": 1}, **axis}


def band(low: float, high: float) -> Figure:
    """The stretch between two values of the y axis, shaded."""
    span = {"y0": low, "y1": high, "x0": 0, "x1": 1, "xref": "paper"}
    return {"type": "rect", "fillcolor": WINNER, "opacity": 0.15, "line": {"width": 0}, **span}


def annotation(said: str, *, x: float | None = None, y: float | None = None) -> Figure:
    """A word at a limit line: at its right end, or at its top."""
    at: Figure = (
        {"x": x, "y": 1, "yref": "paper", "xanchor": "left", "yanchor": "top"}
        if y is None
        else {"x": 1, "xref": "paper", "y": y, "xanchor": "right", "yanchor": "bottom"}
    )
    return {"text": text(said), "showarrow": False, **at}


def text(said: str) -> str:
    """Plotly reads some HTML in texts: what was stored stays the text that it is, on one line."""
    cut = said if len(said) <= _LONGEST_TEXT else f"{said[: _LONGEST_TEXT - 1]}…"
    return html.escape(plain(cut), quote=False)


def duration(ms: float) -> str:
    """``1.05 ms``, ``350 ms``, ``26.4 s``."""
    return f"{ms / 1000:.3g} s" if ms >= 1000 else f"{ms:.3g} ms"


def times(ratio: Interval) -> str:
    """``2.81x [2.74, 2.88]``."""
    return f"{ratio.estimate:.2f}x [{ratio.low:.2f}, {ratio.high:.2f}]"
