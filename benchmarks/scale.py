"""A fleet of thousands of symbols after a month, by replay: what each added symbol costs, and how all else grows."""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.request import urlopen

sys.path.insert(0, str(Path(__file__).parents[1]))

import scale_store
from scale_store import DAYS, Fleet, build, read_recorded, record, window

from autotuner.commands.prune import prune
from autotuner.daemon.config import Config, DaemonConfig, SymbolConfig
from autotuner.daemon.measuring_child import Tuned
from autotuner.daemon.places import OneByOne
from autotuner.daemon.prices_seen import SeenPrices
from autotuner.daemon.situation import symbols_to_keep
from autotuner.daemon.tick import Ticker
from autotuner.environment import Environment
from autotuner.paths import snapshot_path, spool_folder
from autotuner.store import Store
from autotuner.web.site import FRESH_SECONDS, Site
from tests.support.serving import served
from toto_core.settings import RuntimeSettings

RECORDED = Path(__file__).parent / "results" / "scale-runs-2026-12-01.json"
_MAIN = "from autotuner.cli import main; main()"
_LOOKUPS = """
import time
began = time.perf_counter()
import autotuner
import autotuner.serving.lookup
imported = (time.perf_counter() - began) * 1000
import json, os, sys
from autotuner.environment import current_environment
from autotuner.workload import Workload

def taken(symbol, **wanted):
    began = time.perf_counter()
    found = autotuner.lookup(symbol, **wanted)
    return (time.perf_counter() - began) * 1000, found

symbols, found = sys.argv[1:], {"import": imported}
if os.environ.get("KNOWN"):
    current_environment("cpu")
found["first"], answer = taken(symbols[0])
assert answer.source == "promotion", answer
found["others"] = [taken(symbol)[0] for symbol in symbols[1:]]
found["nobody"] = [taken(f"NONE{n}", workload=Workload())[0] for n in range(50)]
began = time.perf_counter()
for _ in range(20_000):
    autotuner.lookup(symbols[0])
found["cached"] = (time.perf_counter() - began) * 50
print(json.dumps(found))
"""
_AFTER = """
import sys, time
from autotuner.serving.lookup import lookup

for _ in sys.stdin:
    began = time.perf_counter()
    found = lookup(sys.argv[1])
    print((time.perf_counter() - began) * 1000, flush=True)
    assert found.source == "promotion", found
"""


@dataclass(kw_only=True)
class Machine(OneByOne):
    """The world of a tick in which nothing may be measured: at these sizes a tick alone is asked about."""

    fleet: Fleet

    def now(self) -> datetime:
        """As it is in the store's month."""
        return self.fleet.now

    def load(self) -> float:
        """None."""
        return 0.0

    def environment(self) -> Environment:
        """The first of the fleet's."""
        return self.fleet.here

    def stopping(self) -> None:
        """Never."""

    def tune(self, arguments: Sequence[str], *, seconds: float) -> Tuned:
        """Nothing comes of it."""
        return Tuned(document=None, cause="nothing is measured here")

    recheck = tune


def main() -> None:
    """Print one table, a column for each size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--symbols", type=int, nargs="+", default=[500, 5_000])
    parser.add_argument("--environments", type=int, default=4)
    parser.add_argument("--days", type=int, default=DAYS)
    parser.add_argument("--recorded", type=Path, default=RECORDED, help="Real runs, as --record keeps them.")
    parser.add_argument("--record", type=Path, help="Keep the real runs in this store, and end.")
    parser.add_argument("--folder", type=Path, help="Where the stores go [default: a temporary folder].")
    parser.add_argument("--ticks", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.record:
        record(
            arguments.record,
            {"first": ("AMD", 0), "added": ("AAPL", 0), "again": ("AMD", 1)},
            arguments.recorded,
        )
    elif arguments.ticks:
        print(json.dumps(ticks(read_fleet(arguments.ticks))))
    else:
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            columns = [measured(Path(folder), size, arguments) for size in arguments.symbols]
        show(arguments, columns)


def measured(folder: Path, symbols: int, arguments: argparse.Namespace) -> dict[str, str]:
    """Everything of one size, in words."""
    place = folder / str(symbols)
    place.mkdir()
    recorded = read_recorded(arguments.recorded)
    began = time.perf_counter()
    fleet = build(place, recorded, symbols=symbols, environments=arguments.environments, days=arguments.days)
    found = {"replayed in": f"{time.perf_counter() - began:,.0f} s"}
    write_fleet(fleet, place)
    for part in (costs, sizes, ticks_apart, lookups, changes, commands, pages):
        print(f"{symbols}: {part.__name__} (load {os.getloadavg()[0]:.1f})", file=sys.stderr, flush=True)
        found |= part(fleet)
    shutil.rmtree(place)
    return found


def costs(fleet: Fleet) -> dict[str, str]:
    """What measuring takes of machines, by kind of run."""
    recorded = fleet.seconds
    each = {kind: seconds / max(1, fleet.runs[kind]) for kind, seconds in recorded.items()}
    return {
        "first symbol of a signature": f"{each['first']:.1f} s",
        "each further symbol": f"{each['added']:.1f} s ({each['added'] / each['first']:.1%} of the first)",
        "a symbol run again, weekly": f"{each['again']:.1f} s",
        "measuring in all, of new symbols": hours(recorded["first"] + recorded["added"]),
        "measuring in all, run again": hours(recorded["again"]),
        "runs": f"{sum(fleet.runs.values()):,}",
    }


def hours(seconds: float) -> str:
    return f"{seconds / 3600:,.1f} h"


def sizes(fleet: Fleet) -> dict[str, str]:
    """What lies on disk."""
    store, snapshot = (
        Path(fleet.location).stat().st_size,
        snapshot_path(fleet.location).stat().st_size,
    )
    many = len(fleet.symbols)
    return {
        "database": f"{store / 1e6:,.0f} MB ({store / many / 1e3:,.0f} kB a symbol)",
        "snapshot": f"{snapshot / 1e6:,.1f} MB ({snapshot / many / 1e3:,.1f} kB a symbol)",
    }


def ticks_apart(fleet: Fleet) -> dict[str, str]:
    """Ticks in a process of their own, for its memory."""
    folder = Path(fleet.location).parent
    run = [sys.executable, __file__, "--ticks", str(folder)]
    around = os.environ | {"AUTOTUNE_CACHE": str(folder / "cache")}  # a tick clears up
    done = subprocess.run(run, capture_output=True, text=True, check=True, env=around)
    found: dict[str, str] = json.loads(done.stdout)
    return found


def ticks(fleet: Fleet) -> dict[str, str]:
    """Of one process, from opening the store to clearing up: its first tick, and later ones."""
    prices, machine, told = SeenPrices(), Machine(fleet=fleet), {}
    daemon = DaemonConfig(recheck_hours=0.0)
    config = Config(daemon=daemon, defaults=SymbolConfig(data=fleet.prices, profile="production"))

    def tick(what: str) -> None:
        began, cpu = time.perf_counter(), time.process_time()
        with Store(fleet.location) as store:
            ticked = Ticker(
                store=store,
                config=config,
                symbols=symbols_to_keep(store, None),
                quiet=(),
                machine=machine,
                log=lambda *_, **__: None,
                prices=prices,
            ).tick()
            prune(store, now=fleet.now)
        assert (ticked.skipped, ticked.tuned, ticked.unreadable) == ((), (), ()), str(ticked)[:200]
        taken = time.perf_counter() - began
        told[what] = f"{taken:.1f} s ({time.process_time() - cpu:.1f} s of CPU)"

    tick("tick: the first of a process")
    tick("tick: nothing has changed")
    leave_notes(fleet)
    tick("tick: with a note of every symbol")
    for file in fleet.prices.iterdir():
        file.touch()
    tick("tick: every price file was touched")
    told["tick: most memory"] = f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:,.0f} MB"
    return told


def leave_notes(fleet: Fleet) -> None:
    """A window of every symbol, as production's processes leave them."""
    spool = spool_folder(fleet.location)
    spool.mkdir(mode=0o700, exist_ok=True)
    with Store(fleet.location) as store:
        active = store.active(fleet.symbols[0])
    assert active is not None
    at = fleet.now - timedelta(minutes=5)
    for number, symbol in enumerate(fleet.symbols):
        note = window(
            symbol,
            active.settings.key,
            fleet.here,
            at=at,
            workload=active.workload,
            p50_ms=active.figures.p50_ms,
        )
        file = spool / f"telemetry-{number}.json"
        file.write_text(json.dumps(note))
        file.chmod(0o600)


def lookups(fleet: Fleet) -> dict[str, str]:
    """Of trading processes: what they pay to look a symbol up for the first time."""
    some = fleet.symbols[:: max(1, len(fleet.symbols) // 200)]

    def asked(**variables: str) -> dict[str, Any]:
        around = os.environ | {"AUTOTUNE_DB": fleet.location} | variables
        run = [sys.executable, "-c", _LOOKUPS, *some]
        done = subprocess.run(run, check=True, capture_output=True, text=True, env=around)
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    several = [asked() for _ in range(5)]
    knowing = [asked(KNOWN="1") for _ in range(5)]
    others = sorted(ms for each in several for ms in each["others"])
    nobody = [ms for each in several for ms in each["nobody"]]
    return {
        "look-up: to import it": ms(each["import"] for each in several),
        "look-up: the first of a process": ms(each["first"] for each in several),
        "look-up: the same, its environment known": ms(each["first"] for each in knowing),
        "look-up: uncached, each further symbol": ms(others),
        "look-up: uncached, 99 of 100": f"{others[len(others) * 99 // 100]:.2f} ms",
        "look-up: uncached, of an unknown symbol": ms(nobody),
        "look-up: cached": f"{statistics.median(each['cached'] for each in several):.1f} us",
    }


def ms(values: Iterator[float] | Sequence[float]) -> str:
    return f"{statistics.median(values):.2f} ms"


def changes(fleet: Fleet) -> dict[str, str]:
    """What a change of the ledger takes, its publication with it."""
    symbol = fleet.symbols[7]
    with Store(fleet.location) as store:
        active = store.active(symbol)
        assert active is not None
        again = replace(active, id=None, run_id=None, promoted_at=fleet.now)
        promoted = several(lambda: store.promote(again))
        looked_up = after_changes(fleet, symbol, lambda: store.promote(again))
        taken_back = several(lambda: store.records.roll_back(symbol, "a benchmark", fleet.now))
        pinned = several(lambda: store.pin(symbol, RuntimeSettings(), "a benchmark"), 3)
        store.records.unpin(symbol, "a benchmark", fleet.now)
        began = time.perf_counter()
        store.records.publish_if_behind()
        behind = time.perf_counter() - began
    return {
        "look-up: uncached, right after a change": ms(looked_up),
        "a promotion, published": f"{promoted * 1e3:,.0f} ms",
        "a roll-back, published": f"{taken_back * 1e3:,.0f} ms",
        "a pin, published": f"{pinned * 1e3:,.0f} ms",
        "to see that the snapshot is not behind": f"{behind * 1e3:,.0f} ms",
    }


def after_changes(fleet: Fleet, symbol: str, change: Callable[[], object]) -> list[float]:
    """Milliseconds of a running process's first look-up after each of ten changes."""
    run = [sys.executable, "-c", _AFTER, symbol]
    around = os.environ | {"AUTOTUNE_DB": fleet.location}
    with subprocess.Popen(
        run, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=around
    ) as looking:
        assert looking.stdin is not None
        assert looking.stdout is not None
        found = []
        for _ in range(11):
            change()
            looking.stdin.write("again\n")
            looking.stdin.flush()
            found.append(float(looking.stdout.readline()))
        looking.stdin.close()
    return found[1:]


def several(act: Callable[[], object], times: int = 5) -> float:
    """The median of seconds."""
    found = []
    for _ in range(times):
        began = time.perf_counter()
        act()
        found.append(time.perf_counter() - began)
    return statistics.median(found)


def commands(fleet: Fleet) -> dict[str, str]:
    """Whole commands, start-up included."""
    named = {
        "`list`": ["list"],
        "`show`": ["show", fleet.symbols[3]],
        "`doctor`": ["doctor"],
        "`plan --all`": ["plan", "--all", "--data", str(fleet.prices)],
    }
    return {name: f"{several(lambda run=run: command(fleet, *run), 3):.2f} s" for name, run in named.items()}


def command(fleet: Fleet, *arguments: str) -> None:
    run = [sys.executable, "-c", _MAIN, *arguments, "--db", fleet.location]
    subprocess.run(run, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=900)


def pages(fleet: Fleet) -> dict[str, str]:
    """The dashboard's overview."""
    with served(Site(location=fleet.location)) as port:
        address = f"http://127.0.0.1:{port}/"

        def fetch() -> None:
            with urlopen(address, timeout=900) as answer:
                answer.read()

        first, unchanged = several(fetch, 1), several(fetch)
        with Store(fleet.location) as store:
            store.pin(fleet.symbols[9], RuntimeSettings(), "a benchmark")
        time.sleep(FRESH_SECONDS)
        changed = several(fetch, 1)
    return {
        "overview: the first": f"{first:.2f} s",
        "overview: nothing changed": f"{unchanged * 1e3:,.0f} ms",
        "overview: after a change": f"{changed:.2f} s",
    }


def write_fleet(fleet: Fleet, folder: Path) -> None:
    values = {
        "now": fleet.now.isoformat(),
        "symbols": len(fleet.symbols),
        "environments": [json.loads(each.to_json()) for each in fleet.environments],
    }
    (folder / "fleet.json").write_text(json.dumps(values))


def read_fleet(folder: Path) -> Fleet:
    values = json.loads((folder / "fleet.json").read_text())
    return Fleet(
        location=str(folder / "autotune.db"),
        prices=folder / "prices",
        symbols=tuple(map(scale_store.named, range(values["symbols"]))),
        environments=tuple(Environment.from_dict(each) for each in values["environments"]),
        now=datetime.fromisoformat(values["now"]),
    )


def show(arguments: argparse.Namespace, columns: Sequence[dict[str, str]]) -> None:
    """The table."""
    print(
        f"{arguments.environments} environments, {arguments.days} days; {os.cpu_count()} cores, "
        f"{platform.system()}, Python {platform.python_version()}; load {os.getloadavg()[0]:.1f}\n"
    )
    print(f"| symbols | {' | '.join(f'{size:,}' for size in arguments.symbols)} |")
    print(f"| --- | {' | '.join('---:' for _ in columns)} |")
    for name in columns[0]:
        print(f"| {name} | {' | '.join(column[name] for column in columns)} |")


if __name__ == "__main__":
    main()
