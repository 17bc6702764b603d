"""One go on a machine with a GPU: limits, tests, a table of configurations beside toto-ts, and a real tuning run.

`make gpu` (or `python3 benchmarks/gpu.py`) takes under ten minutes with Python 3.12, torch 2.11 and no network;
`make gpu-wheels`, on a machine with one, fetches what such a machine lacks (`benchmarks/gpu-wheels.txt`). Each step
is a process of its own with a limit, so that one that fails or hangs leaves the others their time. `--device cpu`
runs every step small, to see that it works.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
ARMS = ROOT / "benchmarks" / "arms"
SECONDS = {"probe": 60, "table": 300, "graphs": 100, "test": 110, "tune": 160}
"""What each step may take."""
CACHE = tempfile.TemporaryDirectory(prefix="gpu-cache-")
"""What one step compiles the next one finds; `tune` measures cold starts in folders of its own."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--steps", default="probe,table,test,tune", help=f"some of {','.join(SECONDS)}")
    parser.add_argument("--out", type=Path, help="a folder for what every step prints")
    options = parser.parse_args()
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
    failed = [step for step in options.steps.split(",") if not run_step(step, options.device, options.out)]
    print(f"failed: {', '.join(failed)}" if failed else "every step passed")
    raise SystemExit(1 if failed else 0)


def run_step(step: str, device: str, out: Path | None) -> bool:
    """Run a step within its time, its output shown as it comes and kept in ``out``; whether it passed."""
    print(f"\n## {step}\n", flush=True)
    begun = time.monotonic()
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join((str(ROOT), os.environ.get("PYTHONPATH", ""))),
        "PYTHONUNBUFFERED": "1",
        "HF_HUB_OFFLINE": "1",
        "COLUMNS": "150",
        "TORCHINDUCTOR_CACHE_DIR": CACHE.name,
    }
    passed = True
    for command in commands(step, device, out):
        left = SECONDS[step] - (time.monotonic() - begun)
        limited = ["timeout", "--kill-after=5", f"{max(1.0, left):.0f}", *command]
        passed &= _follow(limited, environment, out and out / f"{step}.txt")
    print(f"\n{step} {'passed' if passed else 'failed'} after {time.monotonic() - begun:.0f} s", flush=True)
    return passed


def commands(step: str, device: str, out: Path | None) -> list[list[str]]:
    """What a step runs."""
    python = sys.executable
    if step == "test":
        tests = ["tests/gpu"] if device == "cuda" else ["tests/gpu", "tests/unit/test_golden_parity.py"]
        quiet = ["-q", "-o", "addopts=", "-o", f"cache_dir={CACHE.name}/pytest", "--durations=5"]
        return [[python, "-m", "pytest", *quiet, *tests]]
    if step == "tune":
        store = ["--db", str((out or Path(tempfile.gettempdir())) / "gpu-run.db")]
        seconds = "120" if device == "cuda" else "60"
        autotune = [python, "-c", "from autotuner.cli import main; main()"]
        tuned = [*autotune, "run", "--symbol", "AMD", "--device", device, "--timeout", seconds, *store]
        return [tuned, [*autotune, "explain", "--symbol", "AMD", *store]]
    small = [] if device == "cuda" else ["--small"]
    return [[python, str(ARMS / f"gpu_{step}.py"), "--device", device, *small]]


def _follow(command: list[str], environment: dict[str, str], log: Path | None) -> bool:
    """Pass on what a command says, line by line; whether it ended well."""
    with (
        subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process,
        (log or Path(os.devnull)).open("a", encoding="utf-8") as lines,
    ):
        assert process.stdout
        for line in process.stdout:
            print(line, end="", flush=True)
            lines.write(line)
    return process.returncode == 0


if __name__ == "__main__":
    main()
