"""Entry point of the command line as another process's child: it dies with that, is nice, waits for its store."""

from __future__ import annotations

import os
import sys


def main(arguments: list[str]) -> None:
    """Become ``autotune`` with ``arguments[2:]``; the first two are the lifeline's descriptor and the niceness."""
    from autotuner.measurement.child.guard import die_with_parent

    die_with_parent(int(arguments[0]))
    os.nice(int(arguments[1]))
    from autotuner.cli import main as command_line
    from storage.patience import RUN_SECONDS, patience

    # Whoever started this has opened the store: where it does not answer now, its server is away.
    with patience(RUN_SECONDS, _say, opening=True):
        command_line(arguments[2:])


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
