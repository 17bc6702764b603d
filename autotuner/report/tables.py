"""Stored promotions, pins and runs as tables for people, made from the documents that ``--json`` prints."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from autotuner.workload import Workload
from toto_core.compile_report import CompileReport
from toto_core.settings import RuntimeSettings

Document = Mapping[str, Any]

_UNKNOWN = "-"
_FIXES = {
    "kill switch": "unset TOTO_DISABLE_COMPILE to let {symbol} compile again",
    "environment variable": "unset TOTO_COMPILE_MODE to let the store decide again",
    "pin": "autotune unpin {symbol} lets the promotion decide again",
}


def card(document: Document) -> RenderableType:
    """What a symbol was promoted to, and why: one line per topic; a figure that is not stored is left out."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in _card_rows(document):
        if text:
            table.add_row(Text(f"  {name}"), Text(text))
    return Group(Text(_title(document), style="bold"), table)


LISTING = ("symbol", "settings", "speed-up", "p50", "profile", "since", "pinned")
TIMELINE = ("when", "symbol", "what", "profile", "settings", "why")


def listing(documents: Iterable[Document]) -> list[tuple[str, ...]]:
    """One row a symbol, of the columns ``LISTING``: what it was last promoted to, or that it cannot be read."""
    return [_listed(document) for document in documents]


def timeline(events: Iterable[Document]) -> list[tuple[str, ...]]:
    """Promotions, pins and runs in the order they happened, of the columns ``TIMELINE``."""
    return [
        (
            moment(event["at"]),
            plain(event["symbol"]),
            what_happened(event),
            plain(event.get("profile") or ""),
            label(event),
            _why(event),
        )
        for event in events
    ]


def table_of(names: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """Rows as a table that is laid out to the width it is printed at."""
    table = bare_table(*names)
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def _listed(document: Document) -> tuple[str, ...]:
    if "error" in document:
        return (plain(document["symbol"]), plain(document["error"]), *[""] * (len(LISTING) - 2))
    pin = document.get("pinned")
    return (
        plain(document["symbol"]),
        label(document),
        interval(document) or _UNKNOWN,
        _figures(document, p50_ms="{:,.2f} ms") or _UNKNOWN,
        plain(document["profile"] or _UNKNOWN),
        moment(document["since"]),
        label(pin) if pin else "",
    )


def label(document: Document) -> str:
    """Short text for a document's settings, empty when it has none; what cannot be read is said, not raised."""
    settings = document.get("settings")
    if settings is None:
        return ""
    if isinstance(settings, RuntimeSettings):
        return settings.label
    try:
        return RuntimeSettings.from_dict(settings).label
    except ValueError as error:
        return plain(f"unreadable ({error})")


def speed(document: Document) -> str:
    """``2.81x faster than eager fp32 [2.74, 2.88]``, empty when no ratio is stored."""
    found = _ratio(document)
    if found is None:
        return ""
    estimate, low, high = found
    if estimate == low == high == 1:
        return "that of the reference, which it is"
    words = "faster than" if estimate >= 1 else "the speed of"
    return f"{estimate:.2f}x {words} eager fp32 [{low:.2f}, {high:.2f}]"


def interval(document: Document) -> str:
    """``2.81x [2.74, 2.88]``, empty when no ratio is stored."""
    found = _ratio(document)
    return "" if found is None else "{:.2f}x [{:.2f}, {:.2f}]".format(*found)


def moment(text: str) -> str:
    """An ISO 8601 time as ``2026-05-04 12:30 UTC``; other text unchanged."""
    try:
        return f"{datetime.fromisoformat(text).astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    except ValueError:
        return plain(text)


def what_happened(event: Document) -> str:
    """A promotion, a pin or a run in a few words."""
    if event["event"] == "promotion":
        back = ", rolled back" if event["rolled_back_at"] else ""
        return plain(f"promoted by {event['kind']}{back}")
    if event["event"] == "run":
        return plain(f"run {event['status']}" + (f": {event['verdict']}" if event["verdict"] else ""))
    return str(event["event"])


def plain(text: object) -> str:
    """``text`` on one line without control characters, which stored text could send to a terminal."""
    text = str(text)
    if not text.isprintable():
        text = "".join(letter if letter.isprintable() else " " for letter in text)
    return " ".join(text.split())


def _title(document: Document) -> str:
    symbol, found = document["symbol"], document.get("lookup")
    if found and found["differs"]:
        return f"{symbol} was promoted to {label(document)}; here it runs {label(found)} (from: {found['source']})"
    return f"{symbol} runs {label(document)}"


def _card_rows(document: Document) -> Iterable[tuple[str, str]]:
    yield "speed", speed(document)
    yield "figures", _origin(document)
    latency = {"p50_ms": "p50 {:,.2f} ms", "p95_ms": "p95 {:,.2f} ms", "sigma_time_ms": "sigma {:,.2f} ms"}
    yield "latency", _figures(document, **latency)
    mae = "MAE {:.4g}" + _figures(document, mae_reference=" beside {:.4g} of the reference")
    shift = "quantile shift {:.3%}"
    yield "accuracy", _figures(document, mae=mae, drift="drift at most {:.3%}", quantile_shift=shift)
    start = {"cold_start_ms": "cold {:,.2f} s", "warm_start_ms": "warm {:,.2f} s"}
    yield "start", _figures(document, 1000, **start)
    if document.get("peak_bytes"):
        yield "memory", _figures(document, 2**20, peak_bytes="{:,.0f} MiB at peak")
    yield "compile", _compile(document)
    yield "workload", _workload(document)
    yield "decision", plain(f"{document['decision']['verdict']}: {document['decision']['reason']}")
    yield "since", f"{moment(document['since'])}, profile {plain(document['profile'])}"
    yield "pinned", _pin(document)
    found = document.get("lookup") or {}
    for place, reason in enumerate(found["reasons"] if found.get("differs") else ()):
        yield "" if place else "lookup", plain(reason)
    yield "next", _next(document, found)


def _origin(document: Document) -> str:
    if document.get("stage") == "search":
        return "of the search: they rank settings and promise nothing"
    if document.get("stage") == "shared":
        return f"of one launch, which agrees with the duel of {document['shared_from']['symbol']}"
    return _figures(document, launches="of the duel, {:.0f} launches each")


def _compile(document: Document) -> str:
    try:
        return CompileReport.from_dict(document["compile_report"]).summary
    except (KeyError, TypeError, ValueError):
        return ""


def _workload(document: Document) -> str:
    fields = {name: value for name, value in document["workload"].items() if name != "signature"}
    return plain(Workload.from_dict(fields).summary)


def _pin(document: Document) -> str:
    pin = document.get("pinned")
    if not pin:
        return ""
    why = f" ({plain(pin['reason'])})" if pin["reason"] else ""
    return f"to {label(pin)} since {moment(pin['since'])}{why}"


def _next(document: Document, found: Document) -> str:
    symbol = document["symbol"]
    if not found.get("differs"):
        return f"autotune forecast --symbol {symbol}; autotune rollback {symbol} takes the promotion back"
    return _FIXES.get(found["source"], "autotune run --symbol {symbol} tunes it here").format(symbol=symbol)


def _why(event: Document) -> str:
    back = event.get("rolled_back_at")
    if not back:
        return plain(event["reason"])
    return f"{plain(event['reason'])}\nrolled back {moment(back)}: {plain(event['rolled_back_reason'])}"


def bare_table(*names: str) -> Table:
    """A table without lines between its columns of these names; long texts are folded, nothing is cut."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in names:
        table.add_column(name, overflow="fold", no_wrap=name in {"symbol", "when", "since"})
    return table


def _figures(document: Document, unit: int = 1, /, **patterns: str) -> str:
    """The named figures in ``unit``, each in its pattern; one that is not stored is left out."""
    found = ((_number(document, name), pattern) for name, pattern in patterns.items())
    return ", ".join(pattern.format(value / unit) for value, pattern in found if value is not None)


def _ratio(document: Document) -> tuple[float, float, float] | None:
    ratio = document.get("ratio")
    if not isinstance(ratio, Mapping):
        return None
    estimate, low, high = (_number(ratio, name) for name in ("estimate", "low", "high"))
    return None if estimate is None or low is None or high is None else (estimate, low, high)


def _number(document: Document, name: str) -> float | None:
    value = document.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)
