"""Is a run of the default length right? Beside a 1,500 s run, both from cold caches; a joint duel of what differs."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from neighbour import joint_duel, line

from toto_core.settings import RuntimeSettings


def main() -> None:
    """Print one line a run and a duel for every symbol, and write them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("symbols", nargs="*", default=["AMD", "BTCUSD", "GOOGL"])
    parser.add_argument("--timeout", type=float, default=1500.0, help="of the longer run")
    parser.add_argument("--duel-seconds", type=float, default=420.0)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    found = []
    for symbol in arguments.symbols:
        short = cold_run(symbol, "auto", seed=0)
        long = cold_run(symbol, str(arguments.timeout), seed=1)
        for document in (short, long):
            print(f"{symbol}: {line(document, busy=False)}", flush=True)
        duel = beside(symbol, short, long, seconds=arguments.duel_seconds)
        print(f"{symbol}: {duel}", flush=True)
        found.append({"symbol": symbol, "default": short, "longer": long, "duel": duel})
    if arguments.output:
        arguments.output.write_text(json.dumps(found, indent=1), encoding="utf-8")


def cold_run(symbol: str, timeout: str, *, seed: int) -> dict[str, Any]:
    """The document of a whole run that begins with no store and nothing compiled."""
    with tempfile.TemporaryDirectory(prefix="default-budget-") as folder:
        command = ["run", "--symbol", symbol, "--json", "--timeout", timeout, "--seed", str(seed)]
        begun = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-c", "from autotuner.cli import main; main()", *command],
            env=os.environ | {"AUTOTUNE_CACHE": f"{folder}/cache", "AUTOTUNE_DB": f"{folder}/autotune.db"},
            stdout=subprocess.PIPE,
            check=True,
        )
        document: dict[str, Any] = json.loads(done.stdout)
    return document | {"wall_s": round(time.monotonic() - begun, 1)}


def beside(symbol: str, short: dict[str, Any], long: dict[str, Any], *, seconds: float) -> str:
    """What the longer run's settings gain on those of the default one."""
    one, other = (RuntimeSettings.from_dict(document["settings"]) for document in (long, short))
    if one == other:
        return f"both promote {one.label}"
    runs = [{"document": long}, {"document": short}]
    result = joint_duel(one, other, symbol, runs, seconds=seconds)
    if result is None or result.gain is None:
        return f"{one.label} beside {other.label}: no figures"
    return f"{one.label} gains {result.gain} on {other.label}, {result.launches} launches: {result.verdict}"


if __name__ == "__main__":
    main()
