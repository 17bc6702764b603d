"""Makes folders that nobody else can write to: what lies in them is run."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path


def make_private(folder: Path) -> None:
    """Make a folder, and those above that are missing, for this user alone. Raises ``OSError``."""
    for level in (*reversed(folder.parents), folder):
        if not level.is_dir():
            with suppress(FileExistsError):  # another process was sooner
                level.mkdir(mode=0o700)
