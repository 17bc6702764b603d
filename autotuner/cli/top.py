"""``autotune top``: what running processes do now."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import click

from autotuner.cli.options import (
    ABOVE_ZERO,
    maybe_symbol,
    opened_store,
    print_json,
    print_table,
    say,
    store_options,
)
from autotuner.machine.signals import set_apart
from autotuner.paths import spool_folder, store_location

if TYPE_CHECKING:
    from autotuner.report.live_calls import LiveCalls
    from autotuner.store import Store

NOTHING = (
    "no process that load_pipeline serves has reported in the last {minutes:g} minutes: each reports once a minute "
    "while it is called"
)


@click.command()
@maybe_symbol
@click.option("--minutes", type=ABOVE_ZERO, default=5.0, show_default=True, help="How far to look back.")
@click.option(
    "--interval", type=ABOVE_ZERO, default=2.0, show_default=True, help="Seconds between two looks."
)
@click.option("--once", is_flag=True, help="Print once and end, as where the output is no terminal.")
@store_options
def top_command(
    symbol: str | None, minutes: float, interval: float, once: bool, as_json: bool, db: str | None
) -> None:
    """Watch the calls of running processes, of SYMBOL or of all: latency beside what was promised.

    Processes that load_pipeline serves report once a minute, to files beside the store; these and what the daemon
    has stored of them are shown. Recompiles, eager calls and latencies past the promise are said. Ctrl-C ends it.

    \b
    autotune top
    autotune top AMD --minutes 60 --once
    autotune top --json
    """
    place = store_location(db)
    with opened_store(place) as store:
        if once or as_json or not sys.stdout.isatty():
            rows = _look(store, place, symbol, minutes)
            if as_json:
                print_json({"minutes": minutes, "symbols": [row.to_dict() for row in rows]})
            else:
                _print(rows, minutes)
            return
        _watch(store, place, symbol, minutes, interval)


def _look(store: Store, place: str, symbol: str | None, minutes: float) -> tuple[LiveCalls, ...]:
    from autotuner.daemon.intake import stored_notes, waiting_notes
    from autotuner.report.live_calls import live_calls
    from autotuner.serving.note_files import owners_of
    from autotuner.serving.spool import Window

    since = datetime.now(UTC) - timedelta(minutes=minutes)
    # The spool first: what the daemon takes in meanwhile is then read twice at worst, not missed.
    notes = [
        *waiting_notes(spool_folder(place), since=since, owners=owners_of(place)),
        *stored_notes(store.records.telemetry(symbol, since=since - _LONGEST_WINDOW), _unheard),
    ]
    windows = [
        note for note in notes if isinstance(note, Window) and (symbol is None or note.symbol == symbol)
    ]
    return live_calls(windows, store.records.promotions(symbol), since=since)


def _print(rows: tuple[LiveCalls, ...], minutes: float) -> None:
    if not rows:
        say(NOTHING.format(minutes=minutes))
        return
    from autotuner.report.live_calls import live_table

    print_table(live_table(rows))


def _watch(store: Store, place: str, symbol: str | None, minutes: float, interval: float) -> None:
    from rich.console import Group, RenderableType
    from rich.live import Live
    from rich.text import Text

    from autotuner.cli.safe_console import SafeConsole
    from autotuner.report.live_calls import live_table

    def drawn() -> RenderableType:
        rows = _look(store, place, symbol, minutes)
        head = Text(
            f"{datetime.now(UTC):%H:%M:%S} UTC, the last {minutes:g} minutes; Ctrl-C ends", style="dim"
        )
        return Group(head, live_table(rows) if rows else Text(NOTHING.format(minutes=minutes)))

    console = SafeConsole()
    ended = threading.Event()
    with _ending(ended), Live(drawn(), console=console, auto_refresh=False) as live:
        while not ended.wait(interval):
            live.update(drawn(), refresh=True)


@contextlib.contextmanager
def _ending(ended: threading.Event) -> Iterator[None]:
    """Ctrl-C sets ``ended``: an exception in the middle of a query could be swallowed, and nothing would end."""
    before = signal.signal(signal.SIGINT, lambda *_: set_apart(ended))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _unheard(event: str, **fields: str) -> None:
    """What cannot be read is the daemon's to say."""


_LONGEST_WINDOW = timedelta(minutes=2)
"""A window began at most about this long before it ended: they are found by their beginning."""
