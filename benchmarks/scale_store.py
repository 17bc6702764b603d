"""The store of a fleet after a month, by replay: real runs' rows, repeated for every symbol and environment."""

from __future__ import annotations

import json
import random
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from autotuner.environment import Environment, current_environment
from autotuner.figures import Figures, figures_from_json
from autotuner.measurement.outcome import Interval
from autotuner.store import Store
from autotuner.workload import Workload
from toto_core.model_files import digest, locate
from toto_core.series import PriceSeries, PriceSource, find_series
from toto_core.settings import RuntimeSettings

DAYS, POINTS = 30, 1_500
DAY = timedelta(days=1)
SAMPLES = ("AMD", "AAPL", "GOOGL", "BTCUSD", "ETHUSD")
TABLES = ("runs", "measurements", "promotions", "rollbacks", "telemetry", "series")


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """A real run: what it took, its row, its measurements and its promotion, as the store holds them."""

    seconds: float
    run: Mapping[str, Any]
    measurements: tuple[Mapping[str, Any], ...]
    promotion: Mapping[str, Any] | None


@dataclass(frozen=True, kw_only=True)
class Fleet:
    """A store beside its prices; ``environments`` are those of its machines, ``here`` is this machine's."""

    location: str
    prices: Path
    symbols: tuple[str, ...]
    environments: tuple[Environment, ...]
    now: datetime
    seconds: Mapping[str, float] = field(default_factory=dict)
    runs: Mapping[str, int] = field(default_factory=dict)
    """How long measuring takes, and how many runs there are, by their kind."""

    @property
    def here(self) -> Environment:
        """The environment of this machine."""
        return self.environments[0]


def read_recorded(file: Path) -> dict[str, Recorded]:
    """By kind: the ``first`` run of a signature, one of an ``added`` symbol, and one made ``again``."""
    document = json.loads(file.read_text())
    return {
        kind: Recorded(**{**values, "measurements": tuple(values["measurements"])})
        for kind, values in document.items()
    }


def record(store: Path, runs: Mapping[str, tuple[str, int]], file: Path) -> None:
    """Keep real runs: of each kind the symbol, and which of its runs, 0 for the first."""
    found = {}
    with closing(sqlite3.connect(store)) as connection:
        connection.row_factory = sqlite3.Row
        for kind, (symbol, number) in runs.items():
            of_symbol = "SELECT * FROM runs WHERE symbol = ? ORDER BY started_at LIMIT 1 OFFSET ?"
            run = dict(connection.execute(of_symbol, (symbol, number)).fetchone())
            own = {
                table: [
                    dict(row)
                    for row in connection.execute(f"SELECT * FROM {table} WHERE run_id = ?", (run["run_id"],))
                ]
                for table in ("measurements", "promotions")
            }
            took = datetime.fromisoformat(run["finished_at"]) - datetime.fromisoformat(run["started_at"])
            found[kind] = {
                "seconds": took.total_seconds(),
                "run": run,
                "measurements": own["measurements"],
                "promotion": next(iter(own["promotions"]), None),
            }
    file.write_text(json.dumps(found))


def named(number: int) -> str:
    return f"S{number:05d}"


def build(
    folder: Path, recorded: Mapping[str, Recorded], *, symbols: int, environments: int, days: int = DAYS
) -> Fleet:
    """Write store and prices into an empty folder; what is newest of every symbol was measured on its prices."""
    now = datetime.now(UTC).replace(microsecond=0)
    names = tuple(named(number) for number in range(symbols))
    here = current_environment()
    others = (replace(here, hardware=f"{here.hardware} / rack-{n}") for n in range(1, environments))
    prices = folder / "prices"
    digests = dict(write_prices(prices, names))
    fleet = Fleet(
        location=str(folder / "autotune.db"),
        prices=prices,
        symbols=names,
        environments=(here, *others),
        now=now,
    )
    workload = Workload()
    with Store(fleet.location) as store:
        for environment in fleet.environments:
            store.remember_setting(workload, environment)
    month = Month(fleet=fleet, recorded=recorded, digests=digests, workload=workload, days=days)
    with closing(sqlite3.connect(fleet.location)) as connection:
        connection.execute("PRAGMA synchronous=OFF")
        for name in names:
            for table, rows in month.of(name).items():
                insert(connection, table, rows)
        connection.commit()
        connection.execute("PRAGMA journal_mode=DELETE")
    with Store(fleet.location):
        pass  # publishes the snapshot
    return replace(fleet, seconds=dict(month.seconds), runs=dict(month.runs))


def insert(connection: sqlite3.Connection, table: str, rows: list[dict[str, Any]]) -> None:
    if rows:
        columns = ", ".join(rows[0])
        marks = ", ".join(f":{name}" for name in rows[0])
        connection.executemany(f"INSERT INTO {table} ({columns}) VALUES ({marks})", rows)


def write_prices(folder: Path, names: Iterable[str]) -> Iterator[tuple[str, str]]:
    """The last ``POINTS`` of a sample at a scale of its own for each symbol; the digest of each."""
    folder.mkdir()
    samples = [find_series(symbol, None) for symbol in SAMPLES]
    for number, name in enumerate(names):
        sample = samples[number % len(samples)]
        stamps = sample.timestamps[-POINTS:]
        close = np.round(sample.close[-POINTS:] * (1 + number / 100), 4)
        lines = [
            f"{stamp}Z,{price}" for stamp, price in zip(stamps.astype("datetime64[s]"), close, strict=True)
        ]
        (folder / f"{name}.csv").write_text("\n".join(["timestamp,close", *lines, ""]))
        series = PriceSeries(symbol=name, source="", timestamps=stamps, close=close, repairs=())
        yield name, series.digest


@dataclass(kw_only=True)
class Month:
    """What the month leaves of one symbol after another.

    Every environment tunes a symbol when it appears, four of a hundred of them half way through; the first one of a
    signature in full, the others by what that proved. A week after its last run it is run again, which confirms it.
    Two of a hundred are rolled back once and tuned anew; for five of a hundred the model changes on day 10.
    Production leaves a window of a hundred calls a day of each symbol in each environment.
    """

    fleet: Fleet
    recorded: Mapping[str, Recorded]
    digests: Mapping[str, str]
    workload: Workload
    days: int

    def __post_init__(self) -> None:
        self.seconds = dict.fromkeys(self.recorded, 0.0)
        self.runs = dict.fromkeys(self.recorded, 0)
        self.promotions = 0
        self.begun: set[str] = set()
        self.chance = random.Random(1)
        self.model_digest = digest(locate(self.workload.model))

    def of(self, symbol: str) -> dict[str, list[dict[str, Any]]]:
        """The rows of a symbol by table, in an order in which they may be stored."""
        rows: dict[str, list[dict[str, Any]]] = {
            table: [] for table in ("series", "runs", "measurements", "promotions", "rollbacks", "telemetry")
        }
        first_day = self.days // 2 if self.chance.random() < 0.04 else 0
        rows["series"] += self._series(symbol)
        for environment in self.fleet.environments:
            self._month(rows, symbol, environment, first_day)
        return rows

    def _month(
        self, rows: dict[str, list[dict[str, Any]]], symbol: str, environment: Environment, first_day: int
    ) -> None:
        first = environment.fingerprint not in self.begun
        self.begun.add(environment.fingerprint)
        begin = self.fleet.now - timedelta(days=self.days - first_day) + self.chance.random() * DAY
        promoted = self._run(rows, "first" if first else "added", symbol, environment, begin, promotes=True)
        at, changes = begin, []
        if self.chance.random() < 0.02:
            changes.append(begin + timedelta(days=self.chance.uniform(1, 10)))
            back = {
                "promotion_id": promoted,
                "reason": "its settings failed",
                "rolled_back_at": text(changes[0]),
            }
            rows["rollbacks"].append(back)
        if self.chance.random() < 0.05:
            changes.append(begin + 10 * DAY)
        while (due := min([at + 7 * DAY, *(each for each in changes if each > at)])) < self.fleet.now:
            at = min(due, self.fleet.now - timedelta(hours=1))
            self._run(rows, "again", symbol, environment, at, promotes=due in changes)
        rows["telemetry"] += self._windows(symbol, environment, begin)

    def _run(
        self,
        rows: dict[str, list[dict[str, Any]]],
        kind: str,
        symbol: str,
        environment: Environment,
        at: datetime,
        *,
        promotes: bool,
    ) -> int | None:
        """One run; the id of its promotion."""
        recorded = self.recorded[kind]
        self.seconds[kind] += recorded.seconds
        self.runs[kind] += 1
        about = {
            "symbol": symbol,
            "workload_signature": self.workload.signature,
            "environment_fingerprint": environment.fingerprint,
            "run_id": f"{symbol}-{environment.fingerprint}-{self.runs[kind]}-{kind}",
        }
        ended = at + timedelta(seconds=recorded.seconds)
        rows["runs"].append(
            {
                **recorded.run,
                **about,
                "started_at": text(at),
                "finished_at": text(ended),
                "status": "finished",
            }
        )
        measured = {
            **about,
            "series_digest": self.digests[symbol],
            "model_digest": self.model_digest,
            "measured_at": text(ended),
        }
        rows["measurements"] += [
            {name: value for name, value in ({**row, **measured}).items() if name != "id"}
            for row in recorded.measurements
        ]
        if not promotes:
            return None
        self.promotions += 1
        basis = recorded.promotion or self.recorded["first"].promotion
        assert basis is not None
        evidence = self._own(figures_from_json(basis["evidence_json"]))
        settings = RuntimeSettings.from_json(basis["settings_json"])
        rows["promotions"].append(
            {
                **basis,
                **about,
                "id": self.promotions,
                "settings_key": settings.key,
                "evidence_json": evidence.to_json(),
                "promoted_at": text(ended),
            }
        )
        return self.promotions

    def _own(self, figures: Figures) -> Figures:
        """Figures as no other promotion has them: texts that recur are kept once, and those of figures never do."""
        ratio, by = figures.ratio, 1 + self.chance.random() / 50
        assert ratio is not None
        return replace(
            figures,
            ratio=Interval(estimate=ratio.estimate * by, low=ratio.low * by, high=ratio.high * by),
            prices=PriceSource(data=str(self.fleet.prices)),
        )

    def _series(self, symbol: str) -> list[dict[str, Any]]:
        stamp = text(self.fleet.now - 1000 * DAY)
        names = ("first_timestamp", "last_timestamp", "first_seen")
        values = {"digest": self.digests[symbol], "symbol": symbol, "source": str(self.fleet.prices)}
        return [{**values, "points": POINTS, **dict.fromkeys(names, stamp)}]

    def _windows(self, symbol: str, environment: Environment, begin: datetime) -> list[dict[str, Any]]:
        promotion = self.recorded["added"].promotion  # what nearly all symbols run
        assert promotion is not None
        figures = figures_from_json(promotion["evidence_json"])
        key = RuntimeSettings.from_json(promotion["settings_json"]).key
        found = []
        for day in range(max(0, (self.fleet.now - begin).days)):
            at = begin + DAY * (day + 0.5)
            payload = window(symbol, key, environment, at=at, workload=self.workload, p50_ms=figures.p50_ms)
            found.append(
                {
                    "symbol": symbol,
                    "settings_key": key,
                    "window_start": text(at),
                    "window_end": text(at + timedelta(minutes=1)),
                    "payload_json": json.dumps(payload),
                }
            )
        return found


def window(
    symbol: str, key: str, environment: Environment, *, at: datetime, workload: Workload, p50_ms: float
) -> dict[str, Any]:
    """The fields of a note of a hundred calls, each about as fast as was promised."""
    place = max(0, int(np.log2(p50_ms / 0.01) * 8) - 1)
    shape = workload.shapes[0]
    return {
        "kind": "telemetry",
        "symbol": symbol,
        "settings_key": key,
        "environment_fingerprint": environment.fingerprint,
        "profile": "production",
        "model": workload.model,
        "workload_signature": workload.signature,
        "source": "promotion",
        "window_start": at.isoformat(),
        "window_end": (at + timedelta(minutes=1)).isoformat(),
        "longest_ms": p50_ms * 1.5,
        "recompiles": 0,
        "eager_calls": 0,
        "limit_hits": 0,
        "shapes": {f"{shape.context_length}/{shape.prediction_length}/{shape.num_samples or 0}": 100},
        "buckets": {str(place - 1): 20, str(place): 79, str(place + 1): 1},
        "out_of_memory": 0,
        "fitted_samples": None,
        "calls": 100,
    }


def text(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="microseconds")
