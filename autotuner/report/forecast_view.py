"""Draws a forecast in a terminal: one line of history, one row a step, where the figures come from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

_BAR_WIDTH = 28
_WIDE = 76  # five columns of figures and a bar


@dataclass(frozen=True, kw_only=True)
class Glyphs:
    """The characters of a drawing: levels from low to high, then what a bar is made of."""

    levels: str
    band: str
    centre: str
    last: str


BLOCKS = Glyphs(levels="▁▂▃▄▅▆▇█", band="▒", centre="█", last="│")
ASCII = Glyphs(levels="_.,-=+*#", band="-", centre="O", last="|")


@dataclass(frozen=True, kw_only=True)
class ForecastView:
    """What is drawn, in units of the series: ``history`` (time,), oldest first; the others (step,).

    ``centre`` is the median, or the mean path, which has no 10-90 % band: ``low`` and ``high`` are empty then.
    ``realised`` are the prices that came, as many as steps, or none. ``notes`` are pairs of a word and what is to
    be said. Raises ``ValueError`` for other lengths.
    """

    title: str
    history: tuple[float, ...]
    centre: tuple[float, ...]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    realised: tuple[float, ...] = ()
    notes: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        if not self.history or not self.centre:
            raise ValueError("a forecast view needs at least one past price and one step")
        if len(self.low) != len(self.high) or len(self.low) not in {0, len(self.centre)}:
            raise ValueError("a forecast view needs a whole band or none")
        if len(self.realised) not in {0, len(self.centre)}:
            raise ValueError("a forecast view needs a price that came for every step or none")


def drawing(
    view: ForecastView, *, width: int, ascii_only: bool, plot: RenderableType | None = None
) -> RenderableType:
    """The whole drawing, with a ``plot`` in place of the line where there is one.

    A terminal of few columns gets no bars, one that does not speak UTF-8 plain ones.
    """
    glyphs = ASCII if ascii_only else BLOCKS
    past, span = len(view.history), _span(view)
    line = sparkline((*view.history, *view.centre), glyphs)
    low, high = (_price(value, view) for value in span)
    bars = f"from {low} to {high}; {glyphs.centre} forecast, {glyphs.last} last price"
    notes = Table.grid(padding=(0, 2))
    notes.add_column(style="dim")
    notes.add_column(overflow="fold")  # the default cuts long words with a character that is not ASCII
    wide = width >= _WIDE
    for word, said in (*([("bars", bars)] if wide else []), *view.notes):
        notes.add_row(word, escape(_plain(said) if ascii_only else said))
    in_one_line = (
        f"{escape(line[:past])}[cyan]{escape(line[past:])}[/]  [dim]last {past} prices,[/] [cyan]forecast[/]"
    )
    return Group(
        f"[bold]{escape(_plain(view.title) if ascii_only else view.title)}[/]",
        in_one_line if plot is None else plot,
        _steps(view, span, glyphs if wide else None),
        notes,
    )


def sparkline(values: Sequence[float], glyphs: Glyphs) -> str:
    """One character a value, from the lowest level to the highest; a flat line lies in the middle."""
    low, high = min(values), max(values)
    top = len(glyphs.levels) - 1
    if high <= low:
        return glyphs.levels[top // 2] * len(values)
    return "".join(glyphs.levels[round((value - low) / (high - low) * top)] for value in values)


def bar(
    low: float, centre: float, high: float, *, last: float, span: tuple[float, float], glyphs: Glyphs
) -> str:
    """The band from ``low`` to ``high`` with its centre, and the last price, on a scale over ``span``.

    Always ``_BAR_WIDTH`` characters. The centre hides the last price where both fall together.
    """

    def place(value: float) -> int:
        share = (value - span[0]) / (span[1] - span[0]) if span[1] > span[0] else 0.5
        return min(max(round(share * (_BAR_WIDTH - 1)), 0), _BAR_WIDTH - 1)

    cells = [" "] * _BAR_WIDTH
    cells[place(low) : place(high) + 1] = [glyphs.band] * (place(high) + 1 - place(low))
    cells[place(last)] = glyphs.last
    cells[place(centre)] = glyphs.centre
    return "".join(cells)


def decimals(level: float) -> int:
    """Decimal places that show five digits of a price of about ``level``, at least two."""
    return 2 if level <= 0 else min(max(4 - math.floor(math.log10(level)), 2), 12)


def _steps(view: ForecastView, span: tuple[float, float], glyphs: Glyphs | None) -> Table:
    """One row a step, with bars where there are glyphs to draw them with."""
    last = view.history[-1]
    table = Table(show_edge=False, pad_edge=False)
    headings = ("step", "10 %", "median", "90 %", "change") if view.low else ("step", "mean", "change")
    for heading in (*headings, "came") if view.realised else headings:
        table.add_column(heading, justify="right", no_wrap=True, overflow="crop")
    if glyphs is not None:
        table.add_column(no_wrap=True, overflow="crop")
    lows, highs = view.low or view.centre, view.high or view.centre
    for step, (low, centre, high) in enumerate(zip(lows, view.centre, highs, strict=True), start=1):
        prices = (low, centre, high) if view.low else (centre,)
        cells = [str(step), *(_price(price, view) for price in prices), f"{centre / last - 1:+.2%}"]
        if view.realised:
            cells.append(_price(view.realised[step - 1], view))
        if glyphs is not None:
            cells.append(bar(low, centre, high, last=last, span=span, glyphs=glyphs))
        table.add_row(*cells)
    return table


def _span(view: ForecastView) -> tuple[float, float]:
    drawn = (*view.centre, *view.low, *view.high, view.history[-1])
    return min(drawn), max(drawn)


def _price(value: float, view: ForecastView) -> str:
    return f"{value:,.{decimals(view.history[-1])}f}"


def _plain(text: str) -> str:
    return text.encode("ascii", "backslashreplace").decode()
