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
from autotuner.web.site import Site
from storage.errors import StorageError

EVERY_SECONDS = 1.0
BEAT_SECONDS = 15.0
"""A line now and then, by which both ends notice that the other one is gone."""
MOST_ROWS = 100
"""Rows of one event: a page that fell far behind loads itself again."""


async def changes(site: Site) -> AsyncIterator[str]:
    """An event for every change, for as long as the other end listens."""
    yield "retry: 2000\n\n"
    seen = await _rows(site)
    beat = time.monotonic()
    while True:
        await asyncio.sleep(EVERY_SECONDS)
        rows = await _rows(site)
        if rows is not None and rows is not seen:
            event = _event(site, seen or (), rows)
            seen, beat = rows, time.monotonic()
            yield event
        elif time.monotonic() - beat >= BEAT_SECONDS:
            beat = time.monotonic()
            yield ": still here\n\n"


async def _rows(site: Site) -> tuple[Row, ...] | None:
    try:
        return await run_in_threadpool(site.rows)
    except (AutotuneError, StorageError):  # the page itself says so, and the store may come back
        return None


def _event(site: Site, before: tuple[Row, ...], now: tuple[Row, ...]) -> str:
    known = {row.symbol: row for row in before}
    changed = [row for row in now if known.pop(row.symbol, None) != row]
    if len(changed) > MOST_ROWS or known:  # those left are gone
        return "event: reload\ndata: {}\n\n"
    if not changed:  # of no row, but perhaps of the page of a symbol
        return "event: changed\ndata: {}\n\n"
    rows = {row.symbol: pages.row(row) for row in changed}
    return f"event: rows\ndata: {json.dumps(rows)}\n\n"
