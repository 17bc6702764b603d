"""Where the prices of a file were fetched, as its first line says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

MARK = "# fetched by autotune: "
"""How the first line of a fetched file begins; JSON follows."""


def provenance(path: Path) -> dict[str, Any] | None:
    """Where the prices of a file came from, None for one that was not fetched."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            line = file.readline(10_000)
        found = json.loads(line.removeprefix(MARK)) if line.startswith(MARK) else None
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
