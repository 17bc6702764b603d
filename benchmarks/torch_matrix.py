"""Which releases of torch and of Python pass: an environment for each, the tests that depend on them, a real run.

`make torch-matrix` makes the environments one after the other under `.autotune/matrix` (several GB where torch comes
with CUDA, so each is removed after its turn unless `--keep`), prints a table and writes it to `benchmarks/results/`.
What a step printed stays beside them. A Python is `pythonX.Y` on PATH, or what the variable `PYTHONX_Y`
names; pip takes the build of torch that its own settings lead to.
"""

from __future__ import annotations

import argparse
import datetime
import functools
import os
import platform
import re
import shutil
import subprocess
import time
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / ".autotune" / "matrix"
NEWEST = "newest"
WHOLE = "3.11"
"""The Python under which every step is run; the others show that the package imports, and its unit tests."""
CELLS = (
    *(f"{WHOLE}:{torch}" for torch in ("2.9.1", "2.10.0", "2.11.0", "2.12.1", "2.13.0", NEWEST)),
    *(f"{python}:2.13.0" for python in ("3.12", "3.13", "3.14")),
)
BESIDE_TESTS = ("exchange_calendars>=4.5", "psycopg[binary]>=3.2,<4")
"""What the suite imports beside the extra `test`."""
INSTALL_SECONDS = 1800
IMPORTED = """
import autotuner, torch, toto_core.pipeline
assert autotuner.lookup("AMD").settings.compile_mode
print(f"torch {torch.__version__}")
"""
AUTOTUNE = ("-c", "from autotuner.cli import main; main()")
PYTEST = ("-m", "pytest", "-q", "--no-header", "-n", "2", "--dist", "loadfile")
ENGINE = (
    "tests/contract/test_runner.py",
    "tests/integration/test_compiled_pipeline.py",
    "tests/integration/test_lowering_for_a_gpu.py",  # where torch comes with CUDA
)


@dataclass(frozen=True, kw_only=True)
class Step:
    """What is run in every cell; ``tests`` are shown with their counts."""

    heading: str
    command: Sequence[str]
    seconds: int
    tests: bool = False


STEPS = (
    Step(heading="import, lookup", command=("-c", IMPORTED), seconds=120),
    Step(heading="unit tests", command=(*PYTEST, "tests/unit"), seconds=1200, tests=True),
    Step(heading="engine and runner tests", command=(*PYTEST, *ENGINE), seconds=1800, tests=True),
    Step(
        heading="`autotune run --symbol AMD`",
        command=(*AUTOTUNE, "run", "--symbol", "AMD", "--timeout", "90"),
        seconds=600,
    ),
)


QUICK = STEPS[:2]


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A Python (``3.11``) with a release of torch."""

    python: str
    torch: str

    @property
    def folder(self) -> Path:
        """Where its environment lies, and what its steps printed."""
        return FOLDER / f"{self.python}-{self.torch}"

    @property
    def venv(self) -> Path:
        """Its environment, with whatever its steps cache."""
        return self.folder / "venv"

    @property
    def interpreter(self) -> str:
        """Its environment's own Python."""
        return str(self.venv / "bin" / "python")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cells", nargs="+", default=CELLS, metavar="PYTHON:TORCH")
    parser.add_argument(
        "--keep", action="store_true", help="keep environments; one that is there is used again"
    )
    parser.add_argument(
        "--out", type=Path, default=ROOT / "benchmarks" / "results", help="a folder for the table"
    )
    options = parser.parse_args()
    today = datetime.datetime.now(tz=datetime.UTC).date()
    file, rows = options.out / f"torch-matrix-{today}.md", []
    for name in options.cells:
        python, _, torch = name.partition(":")
        cell = Cell(python=python, torch=torch or NEWEST)
        rows.append(row(cell))
        print(rows[-1], flush=True)
        file.write_text(page(rows, today), encoding="utf-8")  # what is known so far
        if not options.keep:
            shutil.rmtree(cell.venv, ignore_errors=True)
    print(f"\n{file.read_text(encoding='utf-8')}")
    raise SystemExit(1 if any("fails" in each for each in rows) else 0)


def page(rows: Sequence[str], today: datetime.date) -> str:
    """The table, and what its columns are."""
    headings = ["Python", "torch", "installs", *(step.heading for step in STEPS)]
    engine = ", ".join(f"`{file}`" for file in ENGINE)
    return "\n".join(
        [
            f"# Releases of torch and Python, {today}",
            "",
            f"`make torch-matrix` on {platform.machine()} with {os.cpu_count()} CPUs, which others used, too.",
            f"Engine and runner tests are {engine}.",
            "",
            "| " + " | ".join(headings) + " |",
            "| " + " | ".join("---" for _ in headings) + " |",
            *sorted(rows, key=lambda each: [int(number) for number in re.findall(r"\d+", each)[:5]]),
            "",
        ]
    )


def row(cell: Cell) -> str:
    """A cell's line of the table: whether it installs, and what came of every step."""
    missing = install(cell)
    if missing:
        return f"| {cell.python} | {cell.torch} | {missing} |" + " - |" * len(STEPS)
    python, torch = versions(cell)
    steps = STEPS if cell.python == WHOLE else QUICK
    results = [result(cell, step) if step in steps else "-" for step in STEPS]
    return f"| {python} | {torch} | yes, {installed(cell).read_text()} s | " + " | ".join(results) + " |"


def install(cell: Cell) -> str:
    """Make the cell's environment, whatever the project's own pin of torch says; why it cannot be made."""
    if installed(cell).exists():
        return ""
    python = interpreter(cell.python)
    if python is None:
        return "no interpreter"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needs = [*project["dependencies"], *project["optional-dependencies"]["test"], *BESIDE_TESTS]
    release = "torch" if cell.torch == NEWEST else f"torch=={cell.torch}"
    pip = [cell.interpreter, "-m", "pip", "install", "--quiet"]
    begun = time.monotonic()
    for command in (
        [python, "-m", "venv", "--clear", str(cell.venv)],
        [*pip, "--upgrade", "pip"],
        [*pip, release, *(need for need in needs if not need.startswith("torch"))],
        [*pip, "--no-deps", "--editable", str(ROOT)],
    ):
        passed, said = follow(cell, "install", command, INSTALL_SECONDS)
        if not passed:
            return f"fails: {last_line(said)}"
    installed(cell).write_text(f"{time.monotonic() - begun:.0f}", encoding="utf-8")
    return ""


def installed(cell: Cell) -> Path:
    """The file that an environment has once it is whole: how many seconds that took."""
    return cell.venv / "installed"


def interpreter(version: str) -> str | None:
    """A Python of this version that can make environments, if there is one."""
    found = os.environ.get(f"PYTHON{version.replace('.', '_')}") or shutil.which(f"python{version}")
    if found is None:
        return None
    works = subprocess.run([found, "-c", "import venv, ensurepip"], capture_output=True, check=False)
    return found if works.returncode == 0 else None


def versions(cell: Cell) -> tuple[str, str]:
    """Python and torch as they say themselves; what was asked for where they do not."""
    program = "import platform, torch; print(platform.python_version(), torch.__version__)"
    passed, said = follow(cell, "versions", [cell.interpreter, "-c", program], 120)
    python, torch = said.split()[-2:] if passed else (cell.python, cell.torch)
    return python, torch


def result(cell: Cell, step: Step) -> str:
    """What a step came to: its seconds, what it found, and when it failed the reason."""
    begun = time.monotonic()
    passed, said = follow(cell, step.heading, [cell.interpreter, *step.command], step.seconds)
    took = f"{time.monotonic() - begun:.0f} s"
    if step.tests:
        return tests_result(passed, said, took)
    told = re.findall(r"(?:now|still) runs .+|trials: .+ failed", said)
    return "; ".join((f"passes, {took}", *told)) if passed else f"fails after {took}: {last_line(said)}"


def tests_result(passed: bool, said: str, took: str) -> str:
    """What pytest counted, and the first test that failed."""
    counts = re.findall(r"\d+ (?:passed|failed|skipped|errors?)", last_line(said))
    if passed:
        return f"passes, {took}: {', '.join(counts)}"
    failed = re.search(r"^(?:FAILED|ERROR) (.+)$", said, re.MULTILINE)
    return f"fails after {took}: {', '.join(counts)}; {plain(failed[1]) if failed else last_line(said)}"


def follow(cell: Cell, name: str, command: Sequence[str], seconds: int) -> tuple[bool, str]:
    """Run a command within its time; whether it ended well, and what it said, which is kept."""
    limited = ["timeout", "--kill-after=10", str(seconds), *command]
    run = subprocess.run(
        limited,
        cwd=ROOT,
        env=environment(cell.venv),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    cell.folder.mkdir(parents=True, exist_ok=True)
    log = cell.folder / f"{re.sub('[^a-z]+', '-', name.lower()).strip('-')}.log"
    log.write_text(run.stdout, encoding="utf-8")
    late = f"\nnot ready after {seconds} s" if run.returncode in {124, 137} else ""
    return run.returncode == 0, run.stdout + late


@functools.cache
def environment(folder: Path) -> Mapping[str, str]:
    """Variables under which nothing that another cell or the user's own runs compiled is found."""
    return os.environ | {
        "PYTHONPATH": str(ROOT),
        "HF_HUB_OFFLINE": "1",
        "COLUMNS": "150",
        "AUTOTUNE_DB": str(folder / "store.db"),
        "AUTOTUNE_CACHE": str(folder / "cache"),
        "TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor"),
        "PYTEST_ADDOPTS": f"-o cache_dir={folder / 'pytest'}",
    }


def last_line(said: str) -> str:
    """The last line of what a command said, fit for a cell of a table."""
    lines = [line for line in said.splitlines() if line.strip(" =")]
    return plain(lines[-1]) if lines else "it said nothing"


def plain(line: str) -> str:
    return line.strip(" =").replace("|", "/")[:160]


if __name__ == "__main__":
    main()
