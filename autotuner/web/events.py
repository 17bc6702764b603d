"""Server-sent events: which rows of the overview changed, as they are to look now."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator

from starlette.concurrency import run_in_threadpool

from autotuner.errors import AutotuneError
from autotuner.report.overview import Row
from autotuner.web import pages
from autotuner.web.site import Site, State
from storage.errors import StorageError

EVERY_SECONDS = 1.0
BEAT_SECONDS = 15.0
"""A line now and then, by which both ends notice that the other one is gone."""
RELOAD = "event: reload\ndata: {}\n\n"
MOST_ROWS = 100
"""Rows of one event: a page that fell far behind loads itself again."""


async def changes(site: Site, since: str = "") -> AsyncIterator[str]:
    """An event for every change since the state that a page shows, for as long as the other end listens."""
    yield "retry: 2000\n\n"
    shown = site.state_of(since) or await _state(site)
    if since and shown is not None and shown.name != since:
        yield RELOAD  # too old to know what changed
    beat = time.monotonic()
    while True:
        now = await _state(site)
        if now is not None and now is not shown:
            event = _event(() if shown is None else shown.rows, now)
            shown, beat = now, time.monotonic()
            yield event
        elif time.monotonic() - beat >= BEAT_SECONDS:
            beat = time.monotonic()
            yield ": still here\n\n"
        await asyncio.sleep(EVERY_SECONDS)


async def _state(site: Site) -> State | None:
    try:
        return await run_in_threadpool(site.state)
    except (AutotuneError, StorageError):  # the page itself says so, and the store may come back
        return None


def _event(before: tuple[Row, ...], now: State) -> str:
    known = {row.symbol: row for row in before}
    changed = [row for row in now.rows if known.pop(row.symbol, None) != row]
    if len(changed) > MOST_ROWS or known:  # those left are gone
        return RELOAD
    if not changed:  # of no row, but perhaps of the page of a symbol
        return "event: changed\ndata: {}\n\n"
    rows = {row.symbol: pages.row(row) for row in changed}
    return f"event: rows\ndata: {json.dumps(rows)}\n\n"
