"""Metrics and health over HTTP, for Prometheus and for runtimes not written in Python; reads only.

GET and HEAD alone, bound to 127.0.0.1 unless told otherwise, and only for the host names it is known by.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from prometheus_client import CollectorRegistry, Gauge, generate_latest

from autotuner.daemon.config import read_config
from autotuner.daemon.intake import Log, stored_notes
from autotuner.errors import UsageError
from autotuner.figures import FiguresError, figures_from_json
from autotuner.report.documents import lookup_document
from autotuner.serving.lookup import lookup
from autotuner.serving.spool import Window
from autotuner.store import Store
from storage.errors import StorageError
from toto_core.symbols import SymbolError, parse_symbol

if TYPE_CHECKING:
    from autotuner.daemon.loop import Daemon

SETTINGS = "/api/v1/settings/"
_TEXT, _JSON = "text/plain; version=0.0.4; charset=utf-8", "application/json"
_LOCAL = ("127.0.0.1", "localhost", "[::1]")


@contextlib.contextmanager
def serving(daemon: Daemon) -> Iterator[None]:
    """Serve inside the block, where the configuration names an address. Raises ``UsageError``."""
    address = read_config(daemon.config_file).daemon.http
    if not address:
        yield
        return
    host, port = parse_address(address)
    try:
        server = _server_of(host)((host, port), handler_of(daemon, host))
    except OSError as error:
        raise UsageError(f"daemon.http {address!r}: cannot be served: {error.strerror or error}") from None
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, name="autotune-web", daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()


class _Server6(ThreadingHTTPServer):
    address_family = socket.AF_INET6


def _server_of(host: str) -> type[ThreadingHTTPServer]:
    return _Server6 if ":" in host else ThreadingHTTPServer


def parse_address(text: str) -> tuple[str, int]:
    """Host and port of ``"127.0.0.1:9478"`` or ``"[::1]:9478"``. Raises ``UsageError``."""
    host, _, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    host = host[1:-1] if bracketed else host
    if (":" in host) != bracketed:
        raise UsageError(f"daemon.http {text!r}: an IPv6 address stands in brackets, such as [::1]:9478")
    if not host or not port.isdecimal() or not 0 <= int(port) <= 65_535:
        raise UsageError(f"daemon.http {text!r}: must be HOST:PORT, such as 127.0.0.1:9478")
    return host, int(port)


def handler_of(daemon: Daemon, host: str) -> type[BaseHTTPRequestHandler]:
    """The handler of one daemon's server."""

    class Handler(BaseHTTPRequestHandler):
        server_version, sys_version = "autotune", ""

        def do_GET(self) -> None:
            self._respond(with_body=True)

        def do_HEAD(self) -> None:
            self._respond(with_body=False)

        def _respond(self, *, with_body: bool) -> None:
            if not known_host(self.headers.get("Host", ""), host):
                found = 421, _JSON, _json({"error": "this server is not known by that host name"})
            else:
                found = answer(daemon, self.path.partition("?")[0])
            self._answer(*found, with_body=with_body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name upstream
            return

        def _answer(self, status: int, kind: str, body: bytes, *, with_body: bool) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("X-Content-Type-Options", "nosniff")
            self.end_headers()
            if with_body:
                self.wfile.write(body)

    return Handler


def known_host(header: str, bound: str) -> bool:
    """Whether a Host header names this server: a web page that had its name resolve to us does not."""
    name = header.rpartition(":")[0] if header.rpartition(":")[2].isdecimal() else header
    own = f"[{bound.lower()}]" if ":" in bound else bound.lower()
    return bound in ("0.0.0.0", "::") or name.lower() in (*_LOCAL, own)  # noqa: S104 - the user's choice


def answer(daemon: Daemon, path: str) -> tuple[int, str, bytes]:
    """Status, content type and body for a path."""
    if path == "/healthz":
        return (200 if daemon.healthy else 503), _JSON, _json(health(daemon))
    if path == "/readyz":
        ready = daemon.healthy and _store_opens(daemon.location)
        return (200 if ready else 503), _JSON, _json({"ready": ready})
    if path == "/metrics":
        return 200, _TEXT, metrics(daemon)
    if path.startswith(SETTINGS):
        return settings(daemon, path.removeprefix(SETTINGS))
    return 404, _JSON, _json({"error": f"known are /metrics, /healthz, /readyz and {SETTINGS}SYMBOL"})


def health(daemon: Daemon) -> dict[str, Any]:
    """What the daemon last did and will do next."""
    return {
        "healthy": daemon.healthy,
        "last_tick": None if daemon.last_at is None else daemon.last_at.isoformat(),
        "next_tick": None if daemon.next_at is None else daemon.next_at.isoformat(),
        "summary": None if daemon.last is None else str(daemon.last),
    }


def settings(daemon: Daemon, symbol: str) -> tuple[int, str, bytes]:
    """What a symbol is to run with, as ``lookup`` says it on this machine."""
    try:
        known = parse_symbol(unquote(symbol))
    except SymbolError as error:
        return 400, _JSON, _json({"error": str(error)})
    found = lookup(known, db=daemon.location)
    more = {name: getattr(found, name) for name in ("symbol", "settings_key", "model", "profile")}
    return 200, _JSON, _json(lookup_document(found) | more)


def metrics(daemon: Daemon) -> bytes:
    """Prometheus's text format: the daemon's own state, and per symbol what is promoted and what production saw."""
    registry = CollectorRegistry()

    def gauge(name: str, text: str, labels: tuple[str, ...] = ()) -> Gauge:
        return Gauge(f"autotune_{name}", text, labels, registry=registry)

    gauge("healthy", "1 while the last tick went well").set(daemon.healthy)
    if daemon.last_at is not None:
        gauge("last_tick_timestamp_seconds", "When the last tick ended").set(daemon.last_at.timestamp())
    if daemon.next_at is not None:
        gauge("next_tick_timestamp_seconds", "When the next tick comes").set(daemon.next_at.timestamp())
    labels = ("symbol", "profile", "settings")
    since = gauge("promoted_timestamp_seconds", "When the active settings were promoted", labels)
    speed = gauge("promoted_ratio", "Reference time over settings time, as proven", labels)
    p50 = gauge("promoted_p50_ms", "Promised median latency", labels)
    up = gauge("store_up", "1 while the store can be read")
    try:
        with Store(daemon.location) as store:
            for record in store.records.active_promotions():
                names = (record.symbol, record.profile, record.settings_key)
                since.labels(*names).set(record.promoted_at.timestamp())
                with contextlib.suppress(FiguresError):  # `autotune list` says it
                    figures = figures_from_json(record.evidence_json)
                    if figures.ratio is not None:
                        speed.labels(*names).set(figures.ratio.estimate)
                        p50.labels(*names).set(float("nan") if figures.p50_ms is None else figures.p50_ms)
            live = gauge("live_calls", "Calls that production made in the newest window", labels[:1])
            _live(store, daemon.log, live)
        up.set(1)
    except StorageError:
        up.set(0)
    body: bytes = generate_latest(registry)
    return body


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


def _store_opens(store: str) -> bool:
    with contextlib.suppress(StorageError), Store(store) as opened:
        opened.records.pins()
        return True
    return False


def _json(document: dict[str, Any]) -> bytes:
    return json.dumps(document).encode() + b"\n"
