"""Templates for pages and reports: every text from outside is escaped, figures go to the page as data."""

from __future__ import annotations

import json
import math
from base64 import b64encode
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import cache
from hashlib import sha256
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from autotuner.measurement.outcome import Interval
from autotuner.report import tables
from autotuner.report.figure_parts import duration, times

UNKNOWN = "-"
SERIOUS = ("unreadable", "quarantined", "rescued")
"""States that want somebody; the others only inform."""


@cache
def templates() -> Environment:
    """The templates of pages and reports, with the words in which figures are written."""
    environment = Environment(
        loader=PackageLoader("autotuner.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["serious"] = SERIOUS
    environment.filters |= _FILTERS
    return environment


def json_block(value: Any) -> Markup:
    """Data for a script element: JSON that cannot end the element, and that a browser does not run."""
    text = json.dumps(_finite(value), separators=(",", ":"), allow_nan=False)
    for letter in "<>&\u2028\u2029":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return Markup(text)  # noqa: S704 - nothing in it can be read as markup any more


@cache
def asset(name: str) -> str:
    """A style sheet or a script of ours."""
    return files("autotuner.report").joinpath("assets", name).read_text(encoding="utf-8")


@cache
def plotly_source() -> str:
    """The library that draws, as its Python package brings it."""
    from plotly.offline import get_plotlyjs

    source: str = get_plotlyjs()
    return source


def script_digest(source: str) -> str:
    """What a content security policy calls a script by that may stand in a page."""
    return f"'sha256-{b64encode(sha256(source.encode()).digest()).decode()}'"


def _moment(value: datetime | str) -> str:
    return tables.moment(value if isinstance(value, str) else value.isoformat())


def _ms(value: float | None) -> str:
    return UNKNOWN if value is None else duration(value)


def _share(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.3%}"


def _bytes(value: int | None) -> str:
    return f"{value / 2**20:,.0f} MiB" if value else UNKNOWN


def _times(value: Interval | None) -> str:
    return UNKNOWN if value is None else times(value)


def _finite(value: Any) -> Any:
    """JSON has no infinities: a point that is none is left out of its chart."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return value


_FILTERS: dict[str, Callable[..., Any]] = {
    "json_block": json_block,
    "moment": _moment,
    "ms": _ms,
    "share": _share,
    "bytes": _bytes,
    "times": _times,
    "what": tables.what_happened,
    "label": tables.label,
}
"""The words in which templates write figures."""
