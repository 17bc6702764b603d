"""Fetches a release: its signature is verified before anything of it is read, and vouches for all that is written."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from autotuner.errors import AutotuneError, UsageError
from autotuner.paths import is_file, snapshot_path
from autotuner.serving.snapshot_age import origin_text
from autotuner.sharing.artifacts import Taken, take_artifacts
from autotuner.sharing.fetching import read_blob, read_whole
from autotuner.sharing.keys import KEY_VARIABLE, PublicKey
from autotuner.sharing.places import Place
from autotuner.sharing.release import MOST_POINTER_BYTES, POINTER, BadRelease, Release, unpack_release
from storage.errors import InvalidRecord, SnapshotError, StorageError
from storage.origin import Origin
from storage.snapshot import (
    fill_document,
    packed_document,
    read_document,
    state_of_parts,
    unpacked_document,
    written_aside,
)

_FUTURE = timedelta(hours=1)
"""A release may be of so much later than this machine's clock says."""


class OlderRelease(AutotuneError):  # noqa: N818 - reads as the message it stands for
    """A place offers an older release than was taken before; the message is one line."""


@dataclass(frozen=True, kw_only=True)
class Rules:
    """``max_age_s`` is how old the snapshot may be; ``allow_older`` takes an older release than the one before.

    With ``replace`` a snapshot goes that was published where it lies.
    """

    max_age_s: float
    allow_older: bool = False
    replace: bool = False


@dataclass(frozen=True, kw_only=True)
class Synced:
    """What look-ups see now; ``changed`` where that says something else than before."""

    origin: Origin
    changed: bool
    symbols: int
    taken: Taken = field(default_factory=Taken)


@dataclass(frozen=True, kw_only=True)
class Local:
    """The snapshot as it lies here; ``document`` is None where none can be read."""

    path: Path
    document: bytes | None = None
    origin: Origin | None = None

    @classmethod
    def of_store(cls, location: str) -> Local:
        """That of the store at ``location``. Raises ``StoreUnavailable`` for a store without a place."""
        path = snapshot_path(location)
        with suppress(SnapshotError):
            document, origin = read_document(path)
            return cls(path=path, document=document, origin=origin)
        return cls(path=path)


def sync_release(
    location: str,
    place: Place,
    keys: Sequence[PublicKey],
    rules: Rules,
    *,
    now: datetime,
    artifacts: bool = True,
) -> Synced:
    """Take what lies at ``place`` for the look-ups of the store at ``location``: artifacts first, then the settings.

    Either snapshot is there at every moment, the old or the new one. Raises ``AutotuneError``; artifacts that
    cannot be taken are told of in ``taken``, because settings serve without them.
    """
    if not keys:
        raise UsageError(
            f"{place.shown}: no key is configured, so nothing of it can be trusted: `autotune share --new-key FILE` "
            f"on the machine that tunes prints what {KEY_VARIABLE} or [sync] key is to hold"
        )
    local = Local.of_store(location)
    _refuse_own(local, rules)
    where = f"{place.shown}/{POINTER}"
    release, key = unpack_release(read_whole(place, POINTER, MOST_POINTER_BYTES), keys, where)
    _refuse_untimely(release, local, rules, where, now)
    document = _document(place, release, local)
    try:
        snapshot = unpacked_document(document)
    except InvalidRecord as error:
        raise BadRelease(f"{where}: {error}: upgrade this host") from None
    taken = take_artifacts(place, release.artifacts) if artifacts else Taken()
    origin = Origin(
        source=place.shown,
        as_of=release.released_at,
        fetched_at=now,
        sequence=release.sequence,
        key=key.name,
        max_age_s=rules.max_age_s,
    )
    changed = _write(local, document, origin)
    symbols = {entry.symbol for entry in snapshot.entries} | {pin.symbol for pin in snapshot.pins}
    return Synced(origin=origin, changed=changed, symbols=len(symbols), taken=taken)


def sync_database(location: str, source: str, rules: Rules, *, now: datetime, shown: str) -> Synced:
    """Take what the ledger of the store at ``source`` says, which is read and never upgraded.

    Whoever may log in there is trusted: nothing is signed. Raises ``AutotuneError`` and ``StorageError``.
    """
    from storage.migrations import HEAD_REVISION
    from storage.read_only import read_only
    from storage.repository import Repository

    local = Local.of_store(location)
    if snapshot_path(source).absolute() != local.path.absolute():
        _refuse_own(local, rules)
    elif is_file(source):
        raise UsageError(
            f"{shown} is the store itself, which publishes its snapshot: name another store in --db"
        )
    with read_only(source) as database:
        revision = database.revision()
        if revision != HEAD_REVISION:
            found = "holds no store" if revision is None else f"is of schema revision {revision}"
            raise StorageError(
                f"{shown} {found}, this version reads {HEAD_REVISION}: upgrade the older of both"
            )
        repository = Repository(database)
        entries, pins = repository.snapshot_contents()
    document = packed_document(entries, pins, generation_time=now)
    origin = Origin(
        source=shown,
        as_of=now,
        fetched_at=now,
        sequence=0 if local.origin is None else local.origin.sequence,
        key="",
        max_age_s=rules.max_age_s,
    )
    before = None
    with suppress(InvalidRecord):  # what lies here may be of another shape, and is replaced
        before = None if local.document is None else unpacked_document(local.document)
    _write(local, document, origin)
    return Synced(
        origin=origin,
        changed=before is None or (before.entries, before.pins) != (entries, pins),
        symbols=len({entry.symbol for entry in entries} | {pin.symbol for pin in pins}),
    )


def what_goes_on(location: str, now: datetime) -> str:
    """What look-ups go on with, in words."""
    with suppress(StorageError):
        local = Local.of_store(location)
        if local.origin is not None:
            return f"look-ups go on with the snapshot here, {origin_text(local.origin, now.timestamp())}"
        if local.document is not None:
            return f"look-ups go on with {local.path}, which was published here"
    return "there is no snapshot here yet: look-ups answer eager fp32"


def _refuse_own(local: Local, rules: Rules) -> None:
    if local.document is not None and local.origin is None and not rules.replace:
        raise UsageError(
            f"{local.path} was published by the store here, which it would replace: name another store in --db, or "
            "give --replace"
        )


def _refuse_untimely(release: Release, local: Local, rules: Rules, where: str, now: datetime) -> None:
    if release.released_at > now + _FUTURE:
        raise BadRelease(
            f"{where} is of {release.released_at:%Y-%m-%d %H:%M} UTC, which is to come: set the clock of this "
            "machine or of the one that shares"
        )
    taken = 0 if local.origin is None else local.origin.sequence
    if release.sequence < taken and not rules.allow_older:
        raise OlderRelease(
            f"{where} is release {release.sequence}, older than {taken}, which was taken before: someone put an old "
            "one back; --allow-older takes it all the same"
        )


def _document(place: Place, release: Release, local: Local) -> bytes:
    """The document of a release, without asking for what lies here already."""
    if local.document is not None and hashlib.sha256(local.document).hexdigest() == release.snapshot.sha256:
        return local.document
    return read_blob(place, release.snapshot)


def _write(local: Local, document: bytes, origin: Origin) -> bool:
    """Replace the snapshot; whether its settings changed. Nothing is written where nothing did."""
    same = local.document == document
    if same and local.origin is not None:
        known = local.origin
        unmoved = (known.as_of, known.sequence, known.source, known.key, known.max_age_s)
        now = origin.as_of, origin.sequence, origin.source, origin.key, origin.max_age_s
        if unmoved == now and state_of_parts(local.path) == "whole":
            return False
    with written_aside(local.path) as aside:
        fill_document(aside, document, origin=origin)
    return not same
