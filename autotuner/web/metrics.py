"""What machines ask for: health, readiness, Prometheus's metrics, and settings for runtimes not written in Python."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from prometheus_client import CollectorRegistry, Gauge, generate_latest

from autotuner.daemon.intake import Log, stored_notes
from autotuner.errors import one_line
from autotuner.figures import FiguresError, figures_from_json
from autotuner.paths import snapshot_path, spool_folder
from autotuner.report.documents import lookup_document
from autotuner.serving.lookup import lookup
from autotuner.serving.refused import refused
from autotuner.serving.spool import Window
from autotuner.store import Store
from storage.errors import StorageError
from storage.snapshot import read_document
from toto_core.symbols import parse_symbol

if TYPE_CHECKING:
    from autotuner.daemon.loop import Daemon


def health(daemon: Daemon | None) -> dict[str, Any]:
    """What the daemon last did and will do next; without one, that this server answers."""
    if daemon is None:
        return {"healthy": True, "last_tick": None, "next_tick": None, "summary": None}
    return {
        "healthy": daemon.healthy,
        "last_tick": None if daemon.last_at is None else daemon.last_at.isoformat(),
        "next_tick": None if daemon.next_at is None else daemon.next_at.isoformat(),
        "summary": None if daemon.last is None else str(daemon.last),
    }


def settings(location: str, symbol: str) -> dict[str, Any]:
    """What a symbol is to run with, as ``lookup`` says it on this machine. Raises ``SymbolError``."""
    found = lookup(parse_symbol(unquote(symbol)), db=location)
    more = {name: getattr(found, name) for name in ("symbol", "settings_key", "model", "profile")}
    return lookup_document(found) | more


def metrics(location: str, daemon: Daemon | None) -> bytes:
    """Prometheus's text format: the daemon's own state, and per symbol what is promoted and what production saw."""
    log: Log = _unheard if daemon is None else daemon.log
    registry = CollectorRegistry()

    def gauge(name: str, text: str, labels: tuple[str, ...] = ()) -> Gauge:
        return Gauge(f"autotune_{name}", text, labels, registry=registry)

    if daemon is not None:
        gauge("healthy", "1 while the last tick went well").set(daemon.healthy)
        for name, text, at in (
            ("last_tick_timestamp_seconds", "When the last tick ended", daemon.last_at),
            ("next_tick_timestamp_seconds", "When the next tick comes", daemon.next_at),
        ):
            if at is not None:
                gauge(name, text).set(at.timestamp())
    labels = ("symbol", "profile", "settings")
    since = gauge("promoted_timestamp_seconds", "When the active settings were promoted", labels)
    speed = gauge("promoted_ratio", "Reference time over settings time, as proven", labels)
    p50 = gauge("promoted_p50_ms", "Promised median latency", labels)
    up = gauge("store_up", "1 while the store can be read")
    _fetched(gauge, location)
    _spooled(gauge("refused_notes", "Files in the spool that were no notes and were set aside"), location)
    try:
        with Store(location, publish=False) as store:
            for record in store.records.active_promotions():
                names = (record.symbol, one_line(record.profile), one_line(record.settings_key))
                since.labels(*names).set(record.promoted_at.timestamp())
                with contextlib.suppress(FiguresError):  # `autotune list` says it
                    figures = figures_from_json(record.evidence_json)
                    if figures.ratio is not None:
                        speed.labels(*names).set(figures.ratio.estimate)
                        p50.labels(*names).set(float("nan") if figures.p50_ms is None else figures.p50_ms)
            live = gauge("live_calls", "Calls that production made in the newest window", labels[:1])
            _live(store, log, live)
            left_out = sum(len(each.rows) for each in store.records.damage)
            gauge("damaged_rows", "Rows of the store that cannot be read and were left out").set(left_out)
        up.set(1)
    except StorageError:
        up.set(0)
    body: bytes = generate_latest(registry)
    return body


def _fetched(gauge: Callable[[str, str], Gauge], location: str) -> None:
    """How old a snapshot is that `autotune sync` fetched; nothing of one that was published here."""
    with contextlib.suppress(StorageError):  # none, or a store without a place
        _, origin = read_document(snapshot_path(location))
        if origin is not None:
            now = datetime.now(UTC).timestamp()
            gauge("snapshot_timestamp_seconds", "When the snapshot was last known to be the newest").set(
                origin.as_of.timestamp()
            )
            gauge("snapshot_age_seconds", "How old the fetched snapshot is").set(origin.age_s(now))
            gauge("snapshot_max_age_seconds", "How old it may be").set(origin.max_age_s)
            gauge("snapshot_old", "1 while it is older than it may be").set(origin.is_old(now))


def _spooled(count: Gauge, location: str) -> None:
    with contextlib.suppress(StorageError):  # a store without a place
        count.set(refused(spool_folder(location)).count)


def _live(store: Store, log: Log, calls: Gauge) -> None:
    since = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    counted: set[str] = set()
    for record in reversed(store.records.telemetry(since=since)):
        if record.symbol in counted:  # reading a note takes longer than leaving it
            continue
        for note in stored_notes([record], log):
            if isinstance(note, Window):
                calls.labels(note.symbol).set(note.calls)
                counted.add(record.symbol)


def store_opens(store: str) -> bool:
    """Whether the store can be read."""
    with contextlib.suppress(StorageError), Store(store, publish=False) as opened:
        opened.records.pins()
        return True
    return False


def _unheard(event: str, **fields: Any) -> None:
    """Of a server without a daemon: the daemon says it in its own log."""
