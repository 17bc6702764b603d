"""What is recorded of each configuration, and how a table made by hand is read as such."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from autotuner.errors import AutotuneError
from autotuner.measurement.outcome import Failed
from toto_core.settings import RuntimeSettings

COLUMNS = "symbol,compile_mode,latency_ms,sigma_time_ms,sigma_mae,mae_difference,price_level"
NORMAL_95 = 1.96


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """What is known of one configuration; latency and sigma in milliseconds, one entry per request shape.

    ``start_ms`` is what a production process pays, ``was_warm`` says that a filled compile cache was found.
    ``cost_s`` is what a trial of it takes, ``again_s`` a launch or a trial that finds everything compiled (the
    same as ``cost_s`` where it is None). With ``failure`` every trial ends that way.
    """

    latency_ms: tuple[float, ...]
    sigma_ms: tuple[float, ...]
    start_ms: float = 0.0
    was_warm: bool = False
    drift: float = 0.0
    quantile_shift: float = 0.0
    mae: float = 0.0
    mae_reference: float = 0.0
    sigma_mae: float = 0.0
    peak_bytes: int = 0
    cost_s: float = 0.0
    again_s: float | None = None
    failure: Failed | None = None

    @property
    def launch_s(self) -> float:
        """Seconds of a launch that finds everything compiled."""
        return self.cost_s if self.again_s is None else self.again_s

    def __post_init__(self) -> None:
        if not self.latency_ms or len(self.latency_ms) != len(self.sigma_ms):
            raise ValueError("recorded: needs one latency and one sigma for each request shape")
        if not all(latency > 0 for latency in self.latency_ms):
            raise ValueError(f"recorded: latency_ms must be above 0, not {self.latency_ms}")
        if not all(sigma >= 0 for sigma in self.sigma_ms):
            raise ValueError(f"recorded: sigma_ms must be 0 or more, not {self.sigma_ms}")


@dataclass(frozen=True, kw_only=True)
class ReplayTable:
    """Recorded answers by canonical settings; ``reference`` is one of them, and has not failed."""

    entries: Mapping[RuntimeSettings, Recorded]
    reference: RuntimeSettings

    def __post_init__(self) -> None:
        recorded = self.entries.get(self.reference)
        if recorded is None or recorded.failure is not None:
            raise ValueError(f"recorded table: the reference ({self.reference.label}) has no measurement")
        if any(len(entry.latency_ms) != len(recorded.latency_ms) for entry in self.entries.values()):
            raise ValueError("recorded table: every configuration needs the same number of request shapes")

    def find(self, settings: RuntimeSettings) -> Recorded | Failed:
        """The entry of ``settings``, or the failure that a trial of them ends with."""
        entry = self.entries.get(settings)
        if entry is None:
            return Failed(kind="crashed", detail=f"{settings.label}: not in the recorded table")
        return entry.failure or entry


def seed_table(rows: str | Path, symbol: str) -> ReplayTable:
    """The rows of ``symbol`` in CSV text, or a file of it, with ``COLUMNS``; eager is the reference.

    Forecasts of the table were drawn without common noise, so drift is what the mean forecast moved beyond
    the 95 % spread of that noise, over the price level: max(0, |difference| - 1.96 sigma) / price. The
    unknown jitter of eager is taken to be ``default``'s, and starts are 0. The error of a mode is given
    as the price level plus its difference, for its sign was not kept. Raises ``AutotuneError``.
    """
    try:
        text = rows.read_text(encoding="utf-8") if isinstance(rows, Path) else rows
        reader = csv.DictReader(io.StringIO(text), restval="")
        if reader.fieldnames != COLUMNS.split(","):
            raise ValueError(f"the columns must be {COLUMNS}")
        found = {row["compile_mode"]: row for row in reader if row["symbol"] == symbol}
        if not {"eager", "default"} <= found.keys():
            raise ValueError("needs a row for eager and one for default")
        unknown_sigma = _number(found["default"], "sigma_time_ms")
        entries = {
            RuntimeSettings(compile_mode=mode): _recorded(row, unknown_sigma) for mode, row in found.items()
        }
        return ReplayTable(entries=entries, reference=RuntimeSettings())
    except (OSError, ValueError, csv.Error) as error:
        raise AutotuneError(f"recorded table: {symbol}: {error}") from None


def _recorded(row: Mapping[str, str], unknown_sigma: float) -> Recorded:
    price = _number(row, "price_level")
    if price <= 0:
        raise ValueError(f"price_level must be above 0, not {price:g}")
    sigma_mae = _number(row, "sigma_mae", blank=0.0)
    difference = _number(row, "mae_difference", blank=0.0)
    return Recorded(
        latency_ms=(_number(row, "latency_ms"),),
        sigma_ms=(_number(row, "sigma_time_ms", blank=unknown_sigma),),
        drift=max(0.0, abs(difference) - NORMAL_95 * sigma_mae) / price,
        mae=price + difference,
        mae_reference=price,
        sigma_mae=sigma_mae,
    )


def _number(row: Mapping[str, str], column: str, blank: float | None = None) -> float:
    if not row[column] and blank is not None:
        return blank
    number = float(row[column])
    if not math.isfinite(number):
        raise ValueError(f"{column} must be a finite number, not {number}")
    return number
