"""``python -m tests.faults.campaign [--long] [--only GROUP]… [--keep FILE]``: exit code 1 when an invariant broke."""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

from tests.faults.campaign.table import Group, Row, Size, as_markdown

GROUPS: tuple[str, ...] = (
    "full_disks",
    "damaged_files",
    "damaged_artifacts",
    "power_loss",
    "spool_floods",
    "clocks",
    "servers",
    "releases",
    "slow_connections",
    "kills_of_writers",
    "kills_of_runs",
    "kills_of_daemon",
    "signals",
    "readers_under_load",
    "hung_children",
    "fuzzed",
)
"""Modules of this package, in the order in which they are run."""


def main() -> None:
    """Make the faults of every group, and print a line for each and the table at the end."""
    options = _options()
    size: Size = "long" if options.long else "short"
    rows: list[Row] = []
    for name in options.only or GROUPS:
        group: Group = importlib.import_module(f"tests.faults.campaign.{name}")
        for row in group.rows(size):
            rows.append(row)
            print(
                f"{'held' if row.passed else 'BROKEN'} {row.held}/{row.times} {row.fault} {row.broken}",
                flush=True,
            )
    table = as_markdown(rows, size)
    print(table)
    if options.keep:
        options.keep.write_text(table, encoding="utf-8")
    sys.exit(0 if rows and all(row.passed for row in rows) else 1)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.campaign", description=__doc__)
    parser.add_argument("--long", action="store_true", help="as often as a night takes")
    parser.add_argument("--only", action="append", choices=GROUPS, metavar="GROUP", help=", ".join(GROUPS))
    parser.add_argument("--keep", type=Path, metavar="FILE", help="write the table there")
    return parser.parse_args()


main()
