"""The adapter over yfinance's real code, with Yahoo's answers from this machine (``make conventions``)."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import date
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest

pytest.importorskip("yfinance")

import yfinance
import yfinance.base
import yfinance.data
import yfinance.scrapers.history

from autotuner.sources.answer import fetched
from autotuner.sources.protocol import SourceError, Wanted
from autotuner.sources.yfinance import fetch

POINTS, NEWEST = 600, 1795789800  # 2026-11-27 14:30 UTC, when New York opens
SECONDS = {"1d": 86400, "1h": 3600}


def chart(symbol: str, interval: str) -> dict[str, Any]:
    """What Yahoo answers: prices that rise by a cent a step, adjusted ones of half that."""
    closes: list[float | None] = [100 + 0.01 * step for step in range(POINTS)]
    if symbol == "HOLES":
        closes[100:102] = [None, None]
    adjusted = [None if close is None else close / 2 for close in closes]
    session = {"timezone": "EST", "start": NEWEST - 86400, "end": NEWEST + 3600, "gmtoffset": -18000}
    meta = {
        "currency": "USD",
        "symbol": symbol,
        "exchangeTimezoneName": "America/New_York",
        "instrumentType": "EQUITY",
        "timezone": "EST",
        "gmtoffset": -18000,
        "regularMarketTime": NEWEST,
        "dataGranularity": interval,
        "priceHint": 2,
        "validRanges": ["1d", "1mo", "2y", "max"],
        "currentTradingPeriod": dict.fromkeys(("pre", "regular", "post"), session),
        "tradingPeriods": [[session]],
    }
    quote = dict.fromkeys(("open", "high", "low", "close"), closes) | {"volume": [1] * POINTS}
    stamps = [NEWEST - SECONDS[interval] * (POINTS - 1 - step) for step in range(POINTS)]
    indicators: dict[str, Any] = {"quote": [quote]}
    if interval == "1d":
        indicators["adjclose"] = [{"adjclose": adjusted}]
    if symbol == "EMPTY":
        stamps, indicators = [], {"quote": [{}], "adjclose": [{}]}
    found = {"meta": meta, "timestamp": stamps, "indicators": indicators}
    return {"chart": {"result": [found], "error": None}}


class Yahoo(BaseHTTPRequestHandler):
    def log_message(self, *_: Any) -> None: ...

    def do_GET(self) -> None:
        asked = urlsplit(self.path)
        symbol, interval = asked.path.rpartition("/")[2], parse_qs(asked.query)["interval"][0]
        if symbol == "LIMITED":
            code, body = 429, "Too Many Requests"
        elif symbol == "BROKEN":
            code, body = 502, "<html>bad gateway</html>"
        else:
            code, body = 200, json.dumps(chart(symbol, interval))
        self.send_response(code)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())


@pytest.fixture(autouse=True)
def yahoo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Yahoo)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    for module in (yfinance.base, yfinance.scrapers.history):
        monkeypatch.setattr(module, "_BASE_URL_", address)
    # Cookies come from other hosts, which are not there.
    monkeypatch.setattr(yfinance.data.YfData, "_get_cookie_and_crumb", lambda *_, **__: (None, None))
    yfinance.set_tz_cache_location(str(tmp_path))
    yield
    server.shutdown()
    server.server_close()


def test_days_are_the_exchanges_dates_and_prices_the_adjusted_ones() -> None:
    series = fetched(fetch, "yfinance", Wanted(symbol="AMD", period="2y"))

    assert (len(series), series.repairs) == (POINTS, ())
    assert series.timestamps[-1] == np.datetime64("2026-11-27T00:00")
    assert series.close[[0, -1]] == pytest.approx([50.0, 52.995])
    since = fetched(fetch, "yfinance", Wanted(symbol="AMD", start=date(2026, 1, 1)))
    assert since.digest == series.digest


def test_hours_are_moments() -> None:
    series = fetched(fetch, "yfinance", Wanted(symbol="AMD", interval="1h", period="1mo"))

    assert series.timestamps[-1] == np.datetime64("2026-11-27T14:30")


@pytest.mark.parametrize(
    ("symbol", "why"),
    [
        ("EMPTY", "Yahoo gave nothing: .*no price data found"),
        ("LIMITED", "Yahoo refuses for now, after too many requests: try again later"),
        ("BROKEN", "Yahoo gave nothing: "),
        ("HOLES", "2 of 600 prices are missing, several in a row"),
    ],
)
def test_what_yfinance_would_hide_is_one_line(symbol: str, why: str) -> None:
    with pytest.raises(SourceError, match=f"^{symbol}: .*{why}") as caught:
        fetched(fetch, "yfinance", Wanted(symbol=symbol, period="2y"))
    assert "\n" not in str(caught.value)
