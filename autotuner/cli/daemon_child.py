"""Entry point of the command line as a child of the daemon: it dies with the daemon, and it is nice."""

from __future__ import annotations

import os
import sys


def main(arguments: list[str]) -> None:
    """Become ``autotune`` with ``arguments[2:]``; the first two are the lifeline's descriptor and the niceness."""
    from autotuner.measurement.child.guard import die_with_parent

    die_with_parent(int(arguments[0]))
    os.nice(int(arguments[1]))
    from autotuner.cli import main as command_line

    command_line(arguments[2:])


if __name__ == "__main__":
    main(sys.argv[1:])
