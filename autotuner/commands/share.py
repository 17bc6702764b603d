"""One release, to where and with which key the files or the command line say."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from autotuner.errors import UsageError
from autotuner.sharing.keys import read_signing_key
from autotuner.sharing.places import place_at
from autotuner.sharing.share import Shared, share


def share_once(location: str, to: str | None, key_file: Path | None, *, artifacts: bool = True) -> Shared:
    """Release the snapshot of the store at ``location``. Raises ``AutotuneError`` and ``StorageError``."""
    if to is None:
        raise UsageError("name where to: --to URL, or to = … in [share] of autotune.toml")
    if key_file is None:
        raise UsageError(
            f"{to}: nothing is shared unsigned: --key FILE, or key = … in [share]; `autotune share --new-key FILE` "
            "makes one"
        )
    return share(
        location, place_at(to), read_signing_key(key_file), now=datetime.now(UTC), artifacts=artifacts
    )
