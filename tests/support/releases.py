"""Machines that tune and hosts that trade, each with a store, a cache and a key of its own."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from autotuner.serving.artifacts import compile_cache
from autotuner.serving.manifest import add_files
from autotuner.sharing.keys import PublicKey, SigningKey, make_key, read_signing_key
from autotuner.sharing.places import Folder
from autotuner.sharing.release import POINTER
from autotuner.sharing.share import Shared, share
from autotuner.sharing.sync import Rules, Synced, sync_release
from storage.snapshot import SnapshotEntry
from tests.support.snapshots import entry, published

HOURS = Rules(max_age_s=6 * 3600)


@dataclass(frozen=True)
class Desk:
    """A folder with a tuning machine's store, a place of releases and a trading host's store."""

    home: Path

    @property
    def tuned(self) -> str:
        return str(self.home / "tuned" / "autotune.db")

    @property
    def host(self) -> str:
        return str(self.home / "host" / "autotune.db")

    @property
    def place(self) -> Path:
        return self.home / "place"

    @property
    def pointer(self) -> Path:
        return self.place / POINTER

    @functools.cached_property
    def key(self) -> SigningKey:
        return signing_key(self.home / "share.key")

    @property
    def public(self) -> tuple[PublicKey, ...]:
        return (self.key.public,)

    def publish(self, *entries: SnapshotEntry) -> None:
        Path(self.tuned).parent.mkdir(exist_ok=True)
        published(self.tuned, *(entries or (entry(),)))

    def share(self, *, ago: float = 0.0, key: SigningKey | None = None) -> Shared:
        now = datetime.now(UTC) - timedelta(seconds=ago)
        return share(self.tuned, Folder(self.place), key or self.key, now=now)

    def sync(self, rules: Rules = HOURS, keys: tuple[PublicKey, ...] | None = None) -> Synced:
        chosen = self.public if keys is None else keys
        return sync_release(self.host, Folder(self.place), chosen, rules, now=datetime.now(UTC))

    def blobs(self) -> list[Path]:
        return sorted(path for path in (self.place / "blobs").rglob("*") if path.is_file())


def signing_key(path: Path) -> SigningKey:
    """A new key in a file."""
    make_key(path)
    return read_signing_key(path)


def built(fingerprint: str, settings_key: str, home: Path, files: dict[str, bytes]) -> Path:
    """Put files into the cache, as a build does; where."""
    made = home / "made"
    for name, content in files.items():
        path = made / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        path.chmod(0o700 if name.endswith(".so") else 0o600)
    folder = compile_cache(fingerprint, settings_key)
    add_files(made, folder)
    return folder
