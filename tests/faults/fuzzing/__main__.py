"""``python -m tests.faults.fuzzing [--target NAME]… [--seconds N] [--atheris]``: exit code 1 where it finds any."""

from __future__ import annotations

import argparse
import resource
import sys
from importlib.util import find_spec
from pathlib import Path

from tests.faults.fuzzing import runs
from tests.faults.fuzzing.target import NAMES, target

_MOST_ADDRESSES = 24 << 30
"""Bytes of address space beyond which an input ends in ``MemoryError`` rather than in the machine's distress."""


def main() -> None:
    """Run, print what was put through each target, and what was found."""
    options = _options()
    resource.setrlimit(resource.RLIMIT_AS, (_MOST_ADDRESSES, resource.getrlimit(resource.RLIMIT_AS)[1]))
    if options.replay:
        _replay(options.replay)
        return
    names = tuple(options.target or NAMES)
    if options.atheris:
        if find_spec("atheris") is None:
            sys.exit("atheris is not installed: pip install 'toto-autotune[fuzz]', or leave --atheris out")
        from tests.faults.fuzzing import guided

        tallies = guided.run(names, options.seconds, _say)
    else:
        tallies = runs.run(names, options.seconds, _say, seed=options.seed)
    print("| target | inputs | seconds | of processor time | findings |\n| --- | ---: | ---: | ---: | ---: |")
    for name, tally in tallies.items():
        took = f"{tally.seconds:,.0f} | {tally.processor_seconds:,.0f}"
        print(f"| {name} | {tally.inputs:,} | {took} | {len(tally.findings)} |")
    found = sum(len(tally.findings) for tally in tallies.values())
    total = sum(tally.seconds for tally in tallies.values())
    print(f"{found} findings in {total:,.0f} s" + (f"; inputs are in {runs.FOLDER}" if found else ""))
    sys.exit(1 if found else 0)


def _replay(path: Path) -> None:
    """One kept input again, with its whole traceback."""
    target(path.name.partition("-")[0]).one(path.read_bytes())


def _say(line: str) -> None:
    print(line, flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.fuzzing", description=__doc__)
    parser.add_argument("--target", action="append", choices=NAMES, metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--seconds", type=float, default=60.0, help="for all targets together [default: 60]")
    parser.add_argument("--seed", type=int, help="the same inputs again, as far as time allows")
    parser.add_argument(
        "--atheris", action="store_true", help="guided by coverage, where atheris is installed"
    )
    parser.add_argument(
        "--replay", type=Path, metavar="FILE", help="put one kept input through its target again"
    )
    return parser.parse_args()


main()
