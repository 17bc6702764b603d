"""Fuzzing guided by coverage, where atheris is installed: each target in a process of its own."""

from __future__ import annotations

import random
import re
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.faults.fuzzing import runs
from tests.faults.fuzzing.target import target

_PACKAGES = ["autotuner", "toto_core", "storage"]
_SPARE_SECONDS = 120
"""Imports are instrumented before anything is put through."""
_LONGEST = 200_000
_FOUND = re.compile(r"FOUND (\S+) at (.*?): (.*)")
_UNITS = re.compile(r"stat::number_of_executed_units: (\d+)")


def run(names: Sequence[str], seconds: float, said: Callable[[str], None]) -> dict[str, runs.Tally]:
    """Each target for its share of the time, from the corpus that earlier runs left."""
    tallies = {}
    for name in names:
        began, worked = time.monotonic(), _children_seconds()
        share = max(1, round(seconds / len(names)))
        corpus = runs.FOLDER / "corpus" / name
        corpus.mkdir(parents=True, exist_ok=True)
        for place, seed in enumerate(target(name).seeds()):
            (corpus / f"seed-{place}").write_bytes(seed)
        command = [sys.executable, "-m", __name__, name, str(share), str(corpus)]
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                timeout=share + _SPARE_SECONDS,
                check=False,
                errors="replace",
                text=True,
            )
            output = done.stdout + done.stderr
            ended = done.returncode
        except subprocess.TimeoutExpired as error:
            output, ended = f"{error.stderr!r}", -1
        tallies[name] = _tally(name, output, ended, said)
        tallies[name].seconds = time.monotonic() - began
        tallies[name].processor_seconds = _children_seconds() - worked
    return tallies


def _children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _tally(name: str, output: str, ended: int, said: Callable[[str], None]) -> runs.Tally:
    units = _UNITS.search(output)
    tally = runs.Tally(inputs=int(units[1]) if units else 0)
    for found in _FOUND.finditer(output):
        said(found[0])
        tally.findings[found[1]] = runs.Finding(target=name, where=found[2], what=found[3], data=b"")
    if ended != 0:
        said(f"FOUND {name} ended with {ended}: {output[-1500:]}")
        tally.findings[f"{name}-ended"] = runs.Finding(
            target=name, where="", what=f"exit code {ended}", data=b""
        )
    return tally


def _fuzz(name: str, seconds: int, corpus: Path) -> None:
    import atheris

    with atheris.instrument_imports(include=_PACKAGES):
        chosen = target(name)
        for seed in chosen.seeds():  # imports what is imported late
            runs.tried(name, chosen, seed, bounded=False)
    tally = runs.Tally()

    def put_in(data: bytes) -> None:
        runs.count(tally, runs.tried(name, chosen, data), lambda line: print(line, flush=True))

    def mutator(data: bytes, most: int, seed: int) -> bytes:
        return chosen.mutated(data, random.Random(seed))[:most]

    arguments = [str(corpus), f"-max_total_time={seconds}", f"-max_len={_LONGEST}", "-print_final_stats=1"]
    limits = ["-rss_limit_mb=0", "-timeout=100000", f"-artifact_prefix={runs.FOLDER}/{name}-"]
    atheris.Setup([sys.argv[0], *arguments, *limits], put_in, custom_mutator=mutator)
    atheris.Fuzz()


if __name__ == "__main__":
    _fuzz(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
