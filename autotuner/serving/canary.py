"""A promotion on trial: only a share of the processes gets it, the others stay with what ran before."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping
from typing import Any

from toto_core.settings import RuntimeSettings

FIELD = "canary"
"""Name in a promotion's evidence: ``{"share": 0.25, "previous": {...}}``."""
_BORN = time.time_ns()
_PROCESS = f"{os.getpid()} {_BORN}"


def canary_evidence(share: float, previous: RuntimeSettings) -> dict[str, Any]:
    """What a promotion's evidence says while it is on trial."""
    return {FIELD: {"share": share, "previous": previous.to_dict()}}


def previous_of(promised_json: str, symbol: str, process: str = _PROCESS) -> RuntimeSettings | None:
    """The settings that ``process`` stays with while the promotion is on trial; None when it gets the new ones.

    The same process always gets the same answer for a symbol. Evidence that cannot be read is no trial.
    """
    if f'"{FIELD}"' not in promised_json:  # nearly always, and quick
        return None
    try:
        trial = json.loads(promised_json)[FIELD]
        share, previous = float(trial["share"]), RuntimeSettings.from_dict(trial["previous"])
    except (KeyError, TypeError, ValueError):
        return None
    return None if _lot(symbol, process) < share else previous


def on_trial(evidence: object) -> RuntimeSettings | None:
    """The settings before those that are on trial, None when ``evidence`` names no trial."""
    if not isinstance(evidence, Mapping) or FIELD not in evidence:
        return None
    try:
        return RuntimeSettings.from_dict(evidence[FIELD]["previous"])
    except (KeyError, TypeError, ValueError):
        return None


def _lot(symbol: str, process: str) -> float:
    digest = hashlib.sha256(f"{process} {symbol}".encode()).digest()
    return int.from_bytes(digest[:4]) / 2**32
