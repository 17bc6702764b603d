"""A report of some symbols as one page that needs nothing else: to mail, or to commit."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from markupsafe import Markup

from autotuner import __version__
from autotuner.report.charts import charts
from autotuner.report.findings import TITLE, advice, checklist, mode_tables, summary
from autotuner.report.html import asset, plotly_source, script_digest, templates
from autotuner.report.symbol_view import SymbolView


def html_report(views: Sequence[SymbolView], *, made_at: datetime) -> str:
    """One page that needs no network."""
    plotly, ours = plotly_source(), asset("charts.js")
    scripts = f"{script_digest(plotly)} {script_digest(ours)}"
    policy = f"default-src 'none'; style-src 'unsafe-inline'; img-src data: blob:; script-src {scripts}"
    return (
        templates()
        .get_template("report.html")
        .render(
            title=TITLE,
            version=__version__,
            made_at=made_at,
            views=views,
            summary=summary(views),
            mode_tables=mode_tables(views),
            advice=advice(views),
            symbols=[(view, charts(view), checklist(view)) for view in views],
            policy=policy,
            style=Markup(asset("style.css")),  # noqa: S704 - ours
            plotly=Markup(plotly),  # noqa: S704 - the library's
            charts_script=Markup(ours),  # noqa: S704 - ours
        )
    )
