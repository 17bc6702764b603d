"""A forecast as a line plot of characters, as wide as the terminal."""

from __future__ import annotations

from rich.text import Text

from autotuner.report.forecast_view import ForecastView

HEIGHT = 16
NARROWEST = 60
"""Columns below which a plot shows less than the table beside it."""


def forecast_plot(view: ForecastView, *, width: int) -> Text:
    """Past prices, the forecast with its band where there is one, and the prices that came where they did.

    Step 0 is the last price that the forecast saw. Colours are rich's to show or to leave out.
    """
    import plotext

    past, steps = len(view.history), range(len(view.centre) + 1)
    last = view.history[-1]
    plotext.clear_figure()
    plotext.theme("clear")
    plotext.limit_size(False, False)  # a width is asked for, whatever terminal there is
    plotext.plot_size(width, HEIGHT)
    plotext.plot([*range(1 - past, 1)], list(view.history), marker="braille", label="prices")
    for name, values in (("10 %", view.low), ("90 %", view.high)):
        if values:
            plotext.plot([*steps], [last, *values], marker="dot", color="blue", label=name)
    plotext.plot([*steps], [last, *view.centre], marker="braille", color="cyan", label="forecast")
    if view.realised:
        plotext.scatter([*steps][1:], list(view.realised), marker="x", color="red", label="came")
    ticks = sorted({1 - past, 0, len(view.centre)})
    plotext.xticks(ticks, [str(tick) for tick in ticks])
    drawn: str = plotext.build()
    plotext.clear_figure()
    return Text.from_ansi(drawn)
