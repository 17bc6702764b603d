"""What a lookup costs where a symbol is promoted: the first one of a process, and a cached one."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import timeit
from pathlib import Path

from switch import BEFORE, promote

_FIRST = """
import time
started = time.perf_counter()
import autotuner
imported = time.perf_counter()
autotuner.lookup("AMD")
print((imported - started) * 1000, (time.perf_counter() - imported) * 1000)
"""


def main() -> None:
    """Print medians of ten processes, and of a hundred thousand cached lookups."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["AUTOTUNE_DB"] = store = str(Path(folder) / "autotune.db")
        promote(store, BEFORE)
        _measure()


def _measure() -> None:
    import autotuner

    runs = []
    for _ in range(10):
        done = subprocess.run([sys.executable, "-c", _FIRST], capture_output=True, text=True, check=True)
        runs.append(tuple(float(value) for value in done.stdout.split()))
    imports, firsts = zip(*runs, strict=True)
    print(f"import autotuner: {statistics.median(imports):.1f} ms (median of 10 processes)")
    print(f"first lookup:     {statistics.median(firsts):.1f} ms")
    assert autotuner.lookup("AMD").source == "promotion"
    calls = 100_000
    best = min(timeit.repeat(lambda: autotuner.lookup("AMD"), number=calls, repeat=5)) / calls
    print(f"cached lookup:    {best * 1e6:.1f} us (best of 5 x {calls:,})")


if __name__ == "__main__":
    main()
