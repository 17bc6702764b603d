"""A promotion on trial: only a share of the processes gets it, the others stay with what ran before."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from toto_core.settings import RuntimeSettings

FIELD = "canary"
"""Name in a promotion's evidence: ``{"share": 0.25, "previous": {...}}``."""
_BORN = time.time_ns()
_PROCESS = f"{os.getpid()} {_BORN}"


def canary_evidence(share: float, previous: RuntimeSettings) -> dict[str, Any]:
    """What a promotion's evidence says while it is on trial."""
    return {FIELD: {"share": share, "previous": previous.to_dict()}}


@dataclass(frozen=True, kw_only=True)
class Trial:
    """The share of processes that get what is on trial, from 0 to 1, and what the others stay with."""

    share: float
    previous: RuntimeSettings


def trial_of(promised_json: object) -> Trial | None:
    """The trial that evidence names, None for none. Raises ``ValueError`` when that cannot be read."""
    if not isinstance(promised_json, str):
        raise ValueError("its evidence is no text")
    if f'"{FIELD}"' not in promised_json:  # nearly always, and quick
        return None
    try:
        found = json.loads(promised_json)[FIELD]
        trial = Trial(share=float(found["share"]), previous=RuntimeSettings.from_dict(found["previous"]))
    except Exception as error:  # what a damaged or newer store holds can fail in any way
        raise ValueError(f"its trial cannot be read: {error}") from None
    if not 0.0 <= trial.share <= 1.0:
        raise ValueError("its trial's share is not between 0 and 1")
    return trial


def previous_of(promised_json: object, symbol: str, process: str = _PROCESS) -> RuntimeSettings | None:
    """The settings that ``process`` stays with while the promotion is on trial; None when it gets the new ones.

    The same process always gets the same answer for a symbol. Evidence that cannot be read is no trial.
    """
    try:
        trial = trial_of(promised_json)
    except ValueError:
        return None
    return None if trial is None or _lot(symbol, process) < trial.share else trial.previous


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
