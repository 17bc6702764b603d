"""What 20,000 symbols cost: whole commands, start-up included, and what a trading process pays to look one up."""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from autotuner.paths import snapshot_path
from autotuner.store import Store
from tests.support.promoted_store import FAST, promotion

_MAIN = "from autotuner.cli import main; main()"
_LOOKUP = """
import sys, time, timeit
import autotuner
symbol = sys.argv[1]
began = time.perf_counter()
found = autotuner.lookup(symbol)
first = time.perf_counter() - began
assert found.source in ("pin", "promotion"), found
cached = min(timeit.repeat(lambda: autotuner.lookup(symbol), number=20_000, repeat=5)) / 20_000
print(first * 1000, cached * 1e6)
"""
_LIMITS = {"import": 5.0, "list": 2.0}


def main() -> None:
    """Print a table: for pins and for promotions, the quickest of several runs of each command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--symbols", type=int, default=20_000)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    print(
        f"{arguments.symbols:,} symbols; the quickest of {arguments.repeats}; load {os.getloadavg()[0]:.1f}\n"
    )
    print("| what | wall | CPU | wished |\n| --- | ---: | ---: | ---: |")
    with tempfile.TemporaryDirectory() as folder:
        for kind in ("pins", "promotions"):
            measure(Path(folder), kind, arguments.symbols, arguments.repeats)
    print(f"\nload at the end {os.getloadavg()[0]:.1f}")


def measure(folder: Path, kind: str, symbols: int, repeats: int) -> None:
    document = folder / f"{kind}.json"
    document.write_text(json.dumps(made(folder / "one.db", kind, symbols)))
    db = folder / f"{kind}.db"

    def imported() -> None:
        for left in (db, snapshot_path(str(db))):
            left.unlink(missing_ok=True)
        command(db, "import", str(document))

    show(kind, "import", imported, repeats)
    for name in ("list", "list --json", "export --output -", "history", f"explain {named(7)}", "db check"):
        if not name.startswith("explain") or kind == "promotions":
            show(kind, name, lambda name=name: command(db, *name.split()), repeats)
    found = [looked_up(db, named(symbols // 2)) for _ in range(repeats)]
    first, cached = (min(values) for values in zip(*found, strict=True))
    print(f"| {kind}: the first look-up of a process | {first:,.0f} ms | | |")
    print(f"| {kind}: a cached look-up | {cached:,.1f} us | | |", flush=True)


def show(kind: str, name: str, act: Callable[[], None], repeats: int) -> None:
    taken = [timed(act) for _ in range(repeats)]
    wall, cpu = (min(values) for values in zip(*taken, strict=True))
    wished = f"{_LIMITS[name]:.0f} s" if name in _LIMITS else ""
    print(f"| {kind}: `{name}` | {wall:.2f} s | {cpu:.2f} s | {wished} |", flush=True)


def timed(act: Callable[[], None]) -> tuple[float, float]:
    """Seconds of wall clock, and of CPU time of the processes it started."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    act()
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def command(db: Path, *arguments: str) -> None:
    run = [sys.executable, "-c", _MAIN, *arguments, "--db", str(db)]
    subprocess.run(run, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def looked_up(db: Path, symbol: str) -> tuple[float, float]:
    variables = os.environ | {"AUTOTUNE_DB": str(db)}
    run = [sys.executable, "-c", _LOOKUP, symbol]
    done = subprocess.run(run, check=True, capture_output=True, text=True, env=variables)
    first, cached = map(float, done.stdout.split())
    return first, cached


def made(one: Path, kind: str, symbols: int) -> dict[str, Any]:
    """What an export of so many symbols holds: figures of its own for each."""
    with Store(str(one)) as store:
        store.promote(promotion())
        store.pin("AMD", FAST, "benchmark")
        document = store.records.export_document()
    item, chance = document[kind][0], random.Random(1)
    several: Sequence[dict[str, Any]] = [
        {**item, "symbol": named(number)} | _own_figures(item, chance) for number in range(symbols)
    ]
    return document | {"promotions": [], "pins": []} | {kind: several}


def named(number: int) -> str:
    return f"S{number:05d}"


def _own_figures(item: dict[str, Any], chance: random.Random) -> dict[str, Any]:
    if "evidence" not in item:
        return {}
    ratio = 1 + chance.random()
    own = {
        "ratio": {"estimate": ratio, "low": ratio * 0.97, "high": ratio * 1.03},
        "p50_ms": 20 * chance.random(),
        "launch_ratios": [ratio * (1 + chance.random() / 50) for _ in range(5)],
    }
    return {"evidence": item["evidence"] | own}


if __name__ == "__main__":
    main()
