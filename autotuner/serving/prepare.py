"""Entry point of a process that compiles a symbol's settings for others: it loads the pipeline once and ends."""

from __future__ import annotations

import json
import os
import sys
import warnings

from autotuner.serving.lookup import lookup
from autotuner.serving.pipeline import load_pipeline

_NICE = 15
"""The calls being served come first; yet not so much that a busy machine never gets this done."""


def main(arguments: list[str]) -> None:
    """Load what ``arguments[0]``, JSON of ``symbol`` and ``load_pipeline``'s plain arguments, asks for.

    Ends with 1 and one line when the settings do not work here, so that nobody switches to them.
    """
    os.nice(_NICE)
    asked = json.loads(arguments[0])
    symbol = asked.pop("symbol")
    wanted = lookup(symbol, **asked).settings
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # the exit code says it
        pipeline = load_pipeline(symbol, telemetry=False, **asked)
    if pipeline.settings != wanted:
        sys.exit(f"{wanted.label}: {pipeline.provenance.get('settings_source')}")


if __name__ == "__main__":
    main(sys.argv[1:])
