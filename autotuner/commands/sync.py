"""What ``autotune sync`` does: one fetch, which says what goes on where it fails, and one check."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from autotuner.errors import AutotuneError, UsageError
from autotuner.serving.snapshot_age import origin_text
from autotuner.sharing.artifacts import take_artifacts
from autotuner.sharing.fetching import read_whole
from autotuner.sharing.keys import PublicKey
from autotuner.sharing.places import place_at
from autotuner.sharing.release import MOST_POINTER_BYTES, POINTER, unpack_release
from autotuner.sharing.sync import Local, Rules, Synced, sync_database, sync_release, what_goes_on
from storage.address import parse_address
from storage.errors import StorageError
from storage.masking import masked_address
from storage.origin import Origin
from storage.whole_files import written_whole

_DATABASES = ("sqlite", "postgres")


@dataclass(frozen=True, kw_only=True)
class Fetch:
    """One host's way to its settings: from ``source``, a place or a store, for the look-ups of ``location``.

    ``artifacts_at`` is the place of artifacts where the source is a store.
    """

    location: str
    source: str
    keys: Sequence[PublicKey]
    rules: Rules
    artifacts: bool = True
    artifacts_at: str | None = None

    def once(self) -> Synced:
        """Fetch now. Raises ``UsageError``, and ``AutotuneError`` that also says what look-ups go on with."""
        now = datetime.now(UTC)
        try:
            if is_database(self.source):
                return self._from_database(now)
            return sync_release(
                self.location, place_at(self.source), self.keys, self.rules, now=now, artifacts=self.artifacts
            )
        except UsageError:
            raise
        except (AutotuneError, StorageError) as error:
            raise AutotuneError(f"{error}; {what_goes_on(self.location, now)}") from None

    def _from_database(self, now: datetime) -> Synced:
        place = None if self.artifacts_at is None else place_at(self.artifacts_at)
        if place is not None and not self.keys:
            raise UsageError(f"{place.shown}: no key is configured, so that no code of it can be trusted")
        shown = masked_address(self.source)
        synced = sync_database(self.location, self.source, self.rules, now=now, shown=shown)
        if place is None or not self.artifacts:
            return synced
        where = f"{place.shown}/{POINTER}"
        release, _ = unpack_release(read_whole(place, POINTER, MOST_POINTER_BYTES), self.keys, where)
        return replace(synced, taken=take_artifacts(place, release.artifacts))


def is_database(source: str) -> bool:
    """Whether a source is a store rather than a place of releases; a plain path is one where a file lies there."""
    scheme, separator, _ = source.partition("://")
    if separator:
        return scheme.lower().startswith(_DATABASES)
    path = parse_address(source).path
    return path is not None and path.is_file()


def checked(location: str, max_age_s: float | None) -> Origin:
    """Where the snapshot here is from. Raises ``AutotuneError`` when it was not fetched or is too old."""
    local = Local.of_store(location)
    if local.document is None:
        raise AutotuneError(
            f"{local.path}: there is no snapshot that can be read: `autotune sync --from URL` fetches it"
        )
    if local.origin is None:
        raise AutotuneError(f"{local.path} was published here and not fetched: its age says nothing")
    origin = local.origin if max_age_s is None else replace(local.origin, max_age_s=max_age_s)
    refuse_old(origin)
    return origin


def refuse_old(origin: Origin) -> None:
    """Raise ``AutotuneError`` when a snapshot is older than it may be."""
    now = time.time()
    if origin.is_old(now):
        raise AutotuneError(
            f"the snapshot is {origin_text(origin, now)}: see whether the machine that tunes still shares, and this "
            "one still fetches"
        )


def write_textfile(path: Path, location: str, *, went_well: bool) -> None:
    """Metrics for node_exporter's textfile collector. Raises ``AutotuneError``."""
    origin = Local.of_store(location).origin
    lines = [*_metric("sync_up", "1 while the last fetch of the snapshot went well", int(went_well))]
    lines += _metric("sync_last_timestamp_seconds", "When it was last tried", time.time())
    if origin is not None:
        as_of = origin.as_of.timestamp()
        lines += _metric(
            "snapshot_timestamp_seconds", "When the snapshot was last known to be the newest", as_of
        )
        lines += _metric("snapshot_max_age_seconds", "How old the snapshot may be", origin.max_age_s)
    try:
        with written_whole(path, mode=0o644) as aside:
            aside.write_text("\n".join(lines) + "\n", encoding="utf-8")
    except OSError as error:
        raise AutotuneError(f"{path} cannot be written: {error.strerror or error}") from None


def _metric(name: str, text: str, value: float) -> tuple[str, ...]:
    return f"# HELP autotune_{name} {text}", f"# TYPE autotune_{name} gauge", f"autotune_{name} {value}"
