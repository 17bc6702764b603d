"""How long a price file of five million rows takes to read, and how much memory; prints both, asserts nothing.

python benchmarks/prices.py [--rows 5000000]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

READ = """
import resource, sys, time
from pathlib import Path
from toto_core.series import read_series
begun = time.perf_counter()
series = read_series(Path(sys.argv[1]), "BIG")
seconds = time.perf_counter() - begun
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(f"{len(series):,} rows in {seconds:.2f} s, {peak:,.0f} MB at peak, last {series.close[-1]!r}")
"""


def write(path: Path, rows: int, kind: str) -> None:
    """A minute's series of ``rows`` prices as the source ``kind`` writes it."""
    moves = np.random.default_rng(0).normal(0.0, 1e-4, size=rows)
    prices = np.round(100 * np.exp(moves.cumsum()), 4)
    stamps = np.datetime64("2010-01-01T00:00:00") + np.arange(rows).astype("timedelta64[m]")
    with path.open("w") as file:
        if kind == "pandas":
            file.write("Date,Open,High,Low,Close,Volume\n")
            file.writelines(
                f"{t},{p},{p},{p},{p},100\n" for t, p in zip(stamps, prices.tolist(), strict=True)
            )
        elif kind == "binance":
            counts = stamps.astype("datetime64[ms]").astype(np.int64).tolist()
            file.writelines(
                f"{t},{p},{p},{p},{p},1.5,{t + 59999},9,3,1,1,0\n"
                for t, p in zip(counts, prices.tolist(), strict=True)
            )
        else:
            days = stamps.astype(object)
            file.writelines(
                f"{t:%Y.%m.%d,%H:%M},{p},{p},{p},{p},30\n" for t, p in zip(days, prices.tolist(), strict=True)
            )


def main() -> None:
    """Write and read a file of each kind."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=5_000_000)
    rows = parser.parse_args().rows
    with tempfile.TemporaryDirectory() as folder:
        for kind in ("pandas", "binance", "metatrader"):
            path = Path(folder) / f"{kind}.csv"
            write(path, rows, kind)
            read = subprocess.run(
                [sys.executable, "-c", READ, str(path)], capture_output=True, text=True, check=True
            )
            print(f"{kind} ({path.stat().st_size / 2**20:,.0f} MB): {read.stdout.strip()}")
            path.unlink()


if __name__ == "__main__":
    main()
