"""How long a cold build takes as torch has it, with parsed headers, and with kept probes too: in turns, in one run.

`python benchmarks/builds.py --rounds 4 --mode default` prints the seconds of each, their ratios to the first with a
95 % interval, and the g++ and Python seconds within. Nothing else may run. What is kept is made before the rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from scipy import stats

BUILD = """
import json, os, resource, sys, time
from contextlib import nullcontext
from pathlib import Path
import numpy as np
from toto_core.compiling import packages
from toto_core.pipeline import TotoPipeline
from toto_core.settings import RuntimeSettings
model, mode, freezing, probes, artifacts = sys.argv[1:]
if probes != "kept":
    packages.probed_once = nullcontext
prices = 100 + np.sin(np.arange(512) / 5)
settings = RuntimeSettings(compile_mode=mode, freezing=freezing == "True", num_threads=1)
begun, own = time.perf_counter(), time.process_time()
pipeline = TotoPipeline.from_pretrained(model, settings=settings, artifacts=Path(artifacts))
pipeline.predict(prices, 8, 256, seed=0)
compilers = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps({
    "seconds": time.perf_counter() - begun,
    "python": time.process_time() - own,
    "compiler": compilers.ru_utime + compilers.ru_stime,
}))
"""
VARIANTS = {
    "as torch has it": (False, False),
    "parsed headers": (True, False),
    "and kept probes": (True, True),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="toto-mini")
    parser.add_argument("--mode", default="default")
    parser.add_argument("--freezing", action="store_true")
    parser.add_argument("--rounds", type=int, default=4)
    options = parser.parse_args()
    found: dict[str, list[dict[str, float]]] = {name: [] for name in VARIANTS}
    with tempfile.TemporaryDirectory(prefix="builds-") as folder:
        build(options, Path(folder), headers=True, probes=True)  # makes what is kept
        for number in range(options.rounds):
            names = list(VARIANTS)
            for name in names[number % 3 :] + names[: number % 3]:
                headers, probes = VARIANTS[name]
                found[name].append(build(options, Path(folder), headers=headers, probes=probes))
                print(
                    f"round {number + 1}: {name}: {found[name][-1]['seconds']:.1f} s",
                    file=sys.stderr,
                    flush=True,
                )
    print(table(found, options))


def build(options: argparse.Namespace, folder: Path, *, headers: bool, probes: bool) -> dict[str, float]:
    """One build in a process and an empty cache of its own."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("TORCHINDUCTOR_", "TOTO_"))
    }
    with tempfile.TemporaryDirectory(prefix="cache-", dir=folder) as cache:
        variables = {"TORCHINDUCTOR_CACHE_DIR": f"{cache}/inductor", "TORCHINDUCTOR_COMPILE_THREADS": "1"}
        if headers:
            variables["TOTO_PRECOMPILED_HEADERS"] = str(folder / "headers")
        arguments = (
            options.model,
            options.mode,
            str(options.freezing),
            "kept" if probes else "no",
            f"{cache}/packages",
        )
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", BUILD, *arguments],
            env=kept | variables | {"OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=True,
        )
    answer: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return answer


def table(found: dict[str, list[dict[str, float]]], options: argparse.Namespace) -> str:
    """Medians, and the ratio of every round to the first variant's in the same round."""
    first = np.log([each["seconds"] for each in next(iter(found.values()))])
    frozen = " frozen" if options.freezing else ""
    lines = [
        f"{options.model}, {options.mode}{frozen}, {options.rounds} rounds, medians in seconds",
        "",
        "| build | whole | compiler | Python | ratio, 95 % interval |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, rounds in found.items():
        whole, compiler, python = (
            statistics.median(each[part] for each in rounds) for part in ("seconds", "compiler", "python")
        )
        logs = np.log([each["seconds"] for each in rounds]) - first
        lines.append(f"| {name} | {whole:.1f} | {compiler:.1f} | {python:.1f} | {_interval(logs)} |")
    return "\n".join(lines)


def _interval(logs: np.ndarray) -> str:
    middle, spread = float(np.mean(logs)), float(np.std(logs, ddof=1)) if len(logs) > 1 else float("nan")
    half = (
        float(stats.t.ppf(0.975, len(logs) - 1)) * spread / len(logs) ** 0.5
        if len(logs) > 1
        else float("nan")
    )
    low, estimate, high = (float(np.exp(each)) for each in (middle - half, middle, middle + half))
    return f"{estimate:.2f} [{low:.2f}, {high:.2f}]"


if __name__ == "__main__":
    main()
