"""A canary: a promotion that only a share of the processes gets, while the others stay with what ran before."""

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
"""Name in a promotion's figures: ``{"share": 0.25, "previous": {...}}``."""
_PROCESS = f"{os.getpid()} {time.time_ns()}"


@dataclass(frozen=True, kw_only=True)
class Canary:
    """The ``share`` of the processes that gets the promotion, and what the others stay with."""

    share: float
    previous: RuntimeSettings

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"share": self.share, "previous": self.previous.to_dict()}

    @classmethod
    def from_dict(cls, values: object) -> Canary:
        """The inverse of ``to_dict``. Raises ``ValueError`` for anything else."""
        if not isinstance(values, Mapping) or not isinstance(values.get("previous"), Mapping):
            raise ValueError("not a share with what ran before")
        share = values.get("share")
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= 1:
            raise ValueError("its share is not a number from 0 to 1")
        return cls(share=float(share), previous=RuntimeSettings.from_dict(values["previous"]))


def canary_of(promised_json: object) -> Canary | None:
    """The canary that a promotion's figures name, None for none. Raises ``ValueError`` when it cannot be read."""
    if not isinstance(promised_json, str):
        raise ValueError("its figures are no text")
    if f'"{FIELD}"' not in promised_json:  # nearly always, and quick
        return None
    try:
        return Canary.from_dict(json.loads(promised_json)[FIELD])
    except Exception as error:  # what a damaged or newer store holds can fail in any way
        raise ValueError(f"its canary cannot be read: {error}") from None


def previous_of(promised_json: object, symbol: str, process: str = _PROCESS) -> RuntimeSettings | None:
    """What ``process`` stays with while the promotion is a canary; None when it gets the new configuration.

    The same process always gets the same answer for a symbol. Figures that cannot be read name no canary.
    """
    try:
        canary = canary_of(promised_json)
    except ValueError:
        return None
    if canary is None:
        return None
    digest = hashlib.sha256(f"{process} {symbol}".encode()).digest()
    lot = int.from_bytes(digest[:4]) / 2**32
    return None if lot < canary.share else canary.previous
