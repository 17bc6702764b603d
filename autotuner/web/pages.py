"""The pages as HTML: what the store and the daemon know, put into the templates."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache, lru_cache
from importlib.resources import files
from typing import Any
from urllib.parse import quote

from jinja2 import ChoiceLoader, Environment, PackageLoader
from markupsafe import Markup

from autotuner import __version__
from autotuner.commands.explain import explain
from autotuner.report.charts import Chart, charts
from autotuner.report.fan_chart import NAME, TITLE, fan_chart
from autotuner.report.findings import checklist
from autotuner.report.html import templates
from autotuner.report.overview import Row
from autotuner.report.progress import progress
from autotuner.report.symbol_view import symbol_view
from autotuner.search.profiles import profile
from autotuner.store import Store
from autotuner.web.daemon_view import daemon_view
from autotuner.web.site import Site
from storage.errors import NotFound

SPARK = 96, 24
"""Width and height of a sparkline."""


def overview_page(site: Site) -> str:
    """All symbols, to search and to sort."""
    state = site.state()
    words = sorted({each.word for row in state.rows for each in row.states})
    rows = [Markup(row(each)) for each in state.rows]  # noqa: S704 - escaped when it was made
    return _page(site, "overview.html", rows=rows, words=words, state=state.name)


@lru_cache(maxsize=20_000)  # most rows stay as they are from one look to the next
def row(row: Row) -> str:
    """One row of the overview, as it replaces the one that is there."""
    return _templates().get_template("row.html").render(row=row)


def symbol_page(site: Site, symbol: str, *, csrf: str | None = None) -> str:
    """Everything of one symbol; ``csrf`` for who may act. Raises ``NotFound`` for one that is not known."""
    state = site.state()
    with site.open() as store:
        going_on = progress(store, symbol)
        if store.active(symbol) is None:
            return _not_promoted(site, store, symbol, going_on)
        view = symbol_view(store, symbol)
    row = next((each for each in state.rows if each.symbol == symbol), None)
    return _page(
        site,
        "symbol.html",
        view=view,
        symbol=symbol,
        states=() if row is None else row.states,
        going_on=going_on,
        charts=charts(view),
        hindcast=Chart(name=NAME, title=TITLE, says="Being made: this takes some seconds the first time."),
        checks=checklist(view),
        certificate=view.document["certificate"],
        changes=view.document["changes"],
        choices=[trial for trial in view.trials if trial.feasible],
        csrf=csrf,
        state=state.name,
    )


def _not_promoted(site: Site, store: Store, symbol: str, going_on: object) -> str:
    pin = next((pin for pin in store.records.pins() if pin.symbol == symbol), None)
    if going_on is None and pin is None:
        raise NotFound(
            f"{symbol} was never promoted: `autotune run --symbol {symbol}` finds out what it should run"
        )
    return _page(
        site, "not_promoted.html", symbol=symbol, going_on=going_on, pin=pin, state=site.state().name
    )


def hindcast(document: Mapping[str, Any]) -> str:
    """The chart of a forecast beside what came."""
    return _chart(fan_chart(document))


def no_hindcast(why: str) -> str:
    """That there is none, and why."""
    return _chart(Chart(name=NAME, title=TITLE, says=f"There is none: {why}."))


def raw(site: Site, symbol: str) -> dict[str, Any]:
    """What ``autotune explain --json`` prints, and every stored trial with its raw blocks."""
    with site.open() as store:
        promotion = store.active(symbol)
        if promotion is None:
            raise NotFound(f"{symbol} was never promoted: there is nothing to download")
        document = explain(store, promotion, profile(promotion.profile))
        measurements = [dataclasses.asdict(each) for each in store.records.measurements(symbol)]
    return {"explanation": document, "measurements": measurements}


def daemon_page(site: Site) -> str:
    """What the daemon did and will do, and what the store knows of measuring."""
    return _page(site, "daemon.html", view=daemon_view(site), state=site.state().name)


def login_page(site: Site, said: str = "") -> str:
    """Where the token is asked for."""
    return _page(site, "login.html", said=said)


def message(site: Site, title: str, said: str) -> str:
    """One sentence as a page."""
    return _page(site, "message.html", heading=title, said=said)


def script(name: str) -> str:
    """A script of the dashboard."""
    return files("autotuner.web").joinpath("assets", name).read_text(encoding="utf-8")


def spark(values: tuple[float, ...]) -> str:
    """Points of a line through values, from the lowest at the bottom to the highest at the top."""
    width, height = SPARK
    low, high = min(values), max(values)
    across, span = width / max(1, len(values) - 1), high - low
    return " ".join(
        f"{place * across:.1f},{height / 2 if not span else height - 1 - (value - low) / span * (height - 2):.1f}"
        for place, value in enumerate(values)
    )


def _chart(chart: Chart) -> str:
    return _templates().get_template("chart.html").render(chart=chart)


def _page(site: Site, name: str, **content: Any) -> str:
    common = {
        "version": __version__,
        "actions": site.token is not None,
        "now": datetime.now(UTC),
        "has_daemon": site.daemon is not None,
        "state": "",
    }
    return _templates().get_template(name).render(**common | content)


@cache
def _templates() -> Environment:
    loader = ChoiceLoader([PackageLoader("autotuner.web"), PackageLoader("autotuner.report")])
    environment = templates().overlay(loader=loader)
    environment.filters |= {"spark": spark, "address": lambda symbol: quote(symbol, safe="")}
    return environment
