"""Forecasts of the last prices beside what came: made in a process of their own, one at a time, and kept."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from typing import Any

from autotuner.errors import AutotuneError, one_line
from autotuner.store import Store

SECONDS = 120.0
_MOST_KEPT = 500
_MAIN = "from autotuner.cli import main; main()"


@dataclass(kw_only=True)
class Hindcasts:
    """Forecasts by symbol and promotion."""

    location: str
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _kept: dict[tuple[str, int | None], dict[str, Any]] = field(default_factory=dict)

    def of(self, symbol: str) -> dict[str, Any]:
        """What ``autotune forecast SYMBOL --hindcast --eager --json`` prints, on the prices it was tuned on.

        Raises ``AutotuneError`` with the reason in one line.
        """
        with Store(self.location, create=False) as store:
            promotion = store.active(symbol)
            if promotion is None:
                raise AutotuneError(f"{symbol} was never promoted: there is no workload to forecast for")
            source = store.price_source(promotion)
        key = symbol, promotion.id
        with self._lock:  # loading a model twice at once would only make both slower
            if key not in self._kept:
                while len(self._kept) >= _MOST_KEPT:
                    del self._kept[next(iter(self._kept))]
                from autotuner.daemon.config import price_arguments

                self._kept[key] = self._made(symbol, price_arguments(source))
            return self._kept[key]

    def _made(self, symbol: str, prices: list[str]) -> dict[str, Any]:
        command = [
            sys.executable,
            "-c",
            _MAIN,
            "forecast",
            symbol,
            "--hindcast",
            "--eager",
            "--json",
            *prices,
        ]
        try:
            done = subprocess.run(
                command,
                env=os.environ | {"AUTOTUNE_DB": self.location},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise AutotuneError(f"the forecast took more than {SECONDS:.0f} s") from None
        if done.returncode != 0:
            last = one_line(done.stderr.strip().rpartition("\n")[2]).removeprefix("Error: ").rstrip(".")
            raise AutotuneError(last or "the forecast failed")
        document: dict[str, Any] = json.loads(done.stdout)
        return document
