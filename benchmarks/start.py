"""How soon a process is ready: imports, the first lookup, commands, and the first forecast; beside another checkout.

`--beside FOLDER` names a checkout of another version: both are started in turns, in one run, on stores and compile
caches of their own, and every line ends with the other's time over ours, its interval over the pairs of starts.
"""

from __future__ import annotations

import argparse
import gzip
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parents[1]
SETTINGS = '{"compile_mode": "default", "num_threads": 1}'
STORE = HERE / "tests" / "data" / "store-0.1.0" / "autotune.db.gz"
"""What every version since 0.1.0 can open: each tree gets a copy, and pins AMD in it."""
COMMANDS = ("--help", "list", "history AMD", "show AMD", "forecast --symbol AMD")
_IMPORT = "import autotuner"
_LOOK_UP = 'import autotuner; assert autotuner.lookup("AMD").source == "pin"'
_LOAD = """
import torch
begun = time.perf_counter()
import autotuner
pipeline = autotuner.load_pipeline("AMD", telemetry=False)
assert pipeline.compile_report.really_compiled
"""
_FIRST = """
import numpy as np
import autotuner
pipeline = autotuner.load_pipeline("AMD", telemetry=False)
pipeline.predict(100 + np.sin(np.arange(512) / 5), 8, 256)
"""
_TIMED = "import time; begun = time.perf_counter()\n{}\nprint(time.perf_counter() - begun)"
_COMMAND = "import sys; from autotuner.cli import main; main(sys.argv[1:])"


@dataclass(frozen=True, kw_only=True)
class Tree:
    """A checkout with the folder of its store and compile cache."""

    source: Path
    folder: Path

    def seconds_inside(self, code: str) -> float:
        """Seconds that ``code`` takes in a fresh process, as it counts them from ``begun`` itself."""
        return float(self.run(["-c", _TIMED.format(code)]).splitlines()[-1])

    def seconds_outside(self, *arguments: str) -> float:
        """Seconds of a whole command, the interpreter's start included."""
        begun = time.perf_counter()
        self.run(["-c", _COMMAND, *arguments])
        return time.perf_counter() - begun

    def run(self, arguments: list[str]) -> str:
        """Standard output of a Python process in this tree."""
        kept = {name: value for name, value in os.environ.items() if name != "TORCHINDUCTOR_CACHE_DIR"}
        places = {"AUTOTUNE_CACHE": f"{self.folder}/cache", "AUTOTUNE_DB": f"{self.folder}/store.db"}
        finished = subprocess.run(
            [sys.executable, *arguments],
            check=True,
            capture_output=True,
            text=True,
            cwd=self.folder,
            env=kept | places | {"PYTHONPATH": str(self.source)},
        )
        return finished.stdout


def main() -> None:
    """Print, for everything that is started, the median of all starts and, beside another tree, the ratio."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--beside", type=Path, help="checkout of another version")
    parser.add_argument("--starts", type=int, default=15)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="autotune-start-") as folder:
        sources = [HERE, *([arguments.beside.resolve()] if arguments.beside else [])]
        trees = [Tree(source=source, folder=Path(folder) / str(n)) for n, source in enumerate(sources)]
        for tree in trees:
            tree.folder.mkdir()
            (tree.folder / "store.db").write_bytes(gzip.decompress(STORE.read_bytes()))
            tree.run(["-c", _COMMAND, "pin", "AMD", "--settings", SETTINGS])
        compare("load_pipeline and compile, nothing stored", trees, 1, lambda t: t.seconds_inside(_LOAD))
        compare("import autotuner", trees, arguments.starts, lambda t: t.seconds_inside(_IMPORT))
        compare("import and first lookup", trees, arguments.starts, lambda t: t.seconds_inside(_LOOK_UP))
        compare(
            "load_pipeline, beyond import torch", trees, arguments.starts, lambda t: t.seconds_inside(_LOAD)
        )
        compare(
            "first forecast, import torch included",
            trees,
            arguments.starts,
            lambda t: t.seconds_inside(_FIRST),
        )
        for command in COMMANDS:
            words = command.split()
            compare(f"autotune {command}", trees, arguments.starts, lambda t, w=words: t.seconds_outside(*w))


def compare(name: str, trees: list[Tree], starts: int, seconds: Callable[[Tree], float]) -> None:
    """Print one line; the trees take turns."""
    times = np.array([[seconds(tree) for tree in trees] for _ in range(starts)])
    line = f"{name:42} {np.median(times[:, 0]):7.3f} s"
    if len(trees) > 1:
        drawn = times[np.random.default_rng(0).integers(starts, size=(2000, starts))]
        ratios = np.median(drawn[:, :, 1], axis=1) / np.median(drawn[:, :, 0], axis=1)
        low, high = np.quantile(ratios, [0.025, 0.975])
        ratio = np.median(times[:, 1]) / np.median(times[:, 0])
        line += f", beside {np.median(times[:, 1]):7.3f} s: {ratio:.2f}x sooner [{low:.2f}, {high:.2f}]"
    print(line, flush=True)


if __name__ == "__main__":
    main()
