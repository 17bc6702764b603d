"""How long a cold build takes as torch has it and with each of our savings added: in turns, in one run.

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
from dataclasses import dataclass
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
model, mode, freezing, probes, beside, artifacts = sys.argv[1:]
if probes != "True":
    packages.probed_once = nullcontext
if beside != "True":
    packages.wrapper_beside = packages.uncollected = nullcontext
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


@dataclass(frozen=True)
class Savings:
    """Which of them a build has."""

    headers: bool
    probes: bool
    beside: bool


VARIANTS = {
    "as torch has it": Savings(headers=False, probes=False, beside=False),
    "parsed headers": Savings(headers=True, probes=False, beside=False),
    "and kept probes": Savings(headers=True, probes=True, beside=False),
    "and wrapper beside kernels, no garbage looked for": Savings(headers=True, probes=True, beside=True),
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
        build(options, Path(folder), list(VARIANTS.values())[-1])  # makes what is kept
        for number in range(options.rounds):
            names = list(VARIANTS)
            for name in names[number % len(names) :] + names[: number % len(names)]:
                found[name].append(build(options, Path(folder), VARIANTS[name]))
                print(
                    f"round {number + 1}: {name}: {found[name][-1]['seconds']:.1f} s",
                    file=sys.stderr,
                    flush=True,
                )
    print(table(found, options))


def build(options: argparse.Namespace, folder: Path, savings: Savings) -> dict[str, float]:
    """One build in a process and an empty cache of its own."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("TORCHINDUCTOR_", "TOTO_"))
    }
    with tempfile.TemporaryDirectory(prefix="cache-", dir=folder) as cache:
        variables = {"TORCHINDUCTOR_CACHE_DIR": f"{cache}/inductor", "TORCHINDUCTOR_COMPILE_THREADS": "1"}
        if savings.headers:
            variables["TOTO_PRECOMPILED_HEADERS"] = str(folder / "headers")
        arguments = (
            options.model,
            options.mode,
            str(options.freezing),
            str(savings.probes),
            str(savings.beside),
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
