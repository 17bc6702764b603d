"""The charts of symbols as PNG files, drawn by the same library as on the page."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from autotuner.errors import AutotuneError
from autotuner.report.charts import charts
from autotuner.report.figure_parts import Figure, text
from autotuner.report.symbol_view import SymbolView
from storage.whole_files import written_whole

WIDTH, HEIGHT, SCALE = 900, 520, 2
"""Of a picture in points, and pixels a point."""


def write_pictures(views: Sequence[SymbolView], folder: Path) -> Iterator[Path]:
    """Write ``<SYMBOL>-<chart>.png`` for every chart that there is something to draw for, one after the other.

    Raises ``AutotuneError`` where there is no browser to draw with.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _one_browser() as draw:
        for view in views:
            for chart in charts(view):
                if chart.figure is not None:
                    path = folder / f"{_file_name(view.symbol)}-{chart.name}.png"
                    with written_whole(path, mode=0o644) as aside:
                        aside.write_bytes(draw(_titled(chart.figure, f"{view.symbol}: {chart.title}")))
                    yield path


@contextmanager
def _one_browser() -> Iterator[Callable[[Figure], bytes]]:
    """Draws figures in one browser, whose start takes longer than a picture."""
    import kaleido

    def draw(figure: Figure) -> bytes:
        options = {"format": "png", "width": WIDTH, "height": HEIGHT, "scale": SCALE}
        picture: bytes = kaleido.calc_fig_sync(figure, opts=options)
        return picture

    try:
        kaleido.start_sync_server(silence_warnings=True)
        yield draw
    except OSError:
        raise
    except Exception as error:  # kaleido has no class of its own for a missing browser
        reason = " ".join(str(error).split())[:200]
        raise AutotuneError(f"pictures need Chrome or Chromium on PATH, or BROWSER_PATH: {reason}") from None
    finally:
        kaleido.stop_sync_server(silence_warnings=True)


def _titled(figure: Figure, title: str) -> Figure:
    layout = figure["layout"] | {"title": {"text": text(title)}, "template": "plotly_white"}
    return {"data": figure["data"], "layout": layout | {"margin": layout["margin"] | {"t": 80}}}


def _file_name(symbol: str) -> str:
    return re.sub(r"[^A-Z0-9._=&^-]", "_", symbol)
