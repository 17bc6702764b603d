"""Puts a signed release of a snapshot, and of the compiled code that it names, where trading hosts fetch it."""

from __future__ import annotations

import hashlib
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from autotuner.errors import AutotuneError, UsageError
from autotuner.files import failing_as
from autotuner.paths import cache_folder, snapshot_path
from autotuner.serving.artifacts import CacheRefused, compile_cache, settings_folder
from autotuner.serving.manifest import Damaged, link_listed
from autotuner.sharing.fetching import read_blob, read_whole
from autotuner.sharing.here import environments_here, settings_wanted
from autotuner.sharing.keys import BadSignature, SigningKey
from autotuner.sharing.places import Missing, Place, PlaceError
from autotuner.sharing.release import (
    MOST_DOCUMENT_BYTES,
    MOST_POINTER_BYTES,
    POINTER,
    BadRelease,
    Blob,
    Files,
    NewerRelease,
    Release,
    pack_list,
    pack_release,
    unpack_list,
    unpack_release,
)
from storage.errors import SnapshotError
from storage.snapshot import Snapshot, read_document, unpacked_document
from toto_core.held_folders import held_folder, remove_left_behind

_READ = "run-share-"


@dataclass(frozen=True, kw_only=True)
class Shared:
    """What lies at the place now, what had to be put there for it, and what was left out, a line each."""

    place: str
    sequence: int
    symbols: int
    environments: int
    files: int
    put_blobs: int
    put_bytes: int
    key: str
    said: tuple[str, ...] = ()


@dataclass(kw_only=True)
class _Upload:
    """What one release puts; a blob that lies there in its length is not put again."""

    place: Place
    until_put: ExitStack
    blobs: int = 0
    size: int = 0
    listed: int = 0
    there: set[str] = field(default_factory=set)
    said: list[str] = field(default_factory=list)

    def put(self, content: bytes) -> Blob:
        blob = Blob(sha256=hashlib.sha256(content).hexdigest(), bytes=len(content))
        self.put_blob(blob, content)
        return blob

    def put_blob(self, blob: Blob, content: bytes | Path) -> None:
        if blob.sha256 in self.there:
            return
        if self.place.size(blob.name) != blob.bytes:
            self.place.put(blob.name, content)
            self.blobs, self.size = self.blobs + 1, self.size + blob.bytes
        self.there.add(blob.sha256)


def share(location: str, place: Place, key: SigningKey, *, now: datetime, artifacts: bool = True) -> Shared:
    """Release what the snapshot of the store at ``location`` says; what it names lies there before it is named.

    Artifacts of environments that this machine has not are kept from the release before. Every call makes a new
    release: its time says that nothing newer is known. Raises ``AutotuneError``, ``UsageError`` where the place
    is another key's.
    """
    document = _document(location)
    snapshot = unpacked_document(document)
    before = _before(place, key)
    with ExitStack() as until_put:  # a place may take all of it at once, when the pointer is put
        upload = _Upload(place=place, until_put=until_put)
        release = Release(
            sequence=max(before.sequence + 1 if before else 0, int(now.timestamp() * 1000)),
            released_at=now,
            snapshot=upload.put(document),
            artifacts=_lists(upload, snapshot, before) if artifacts else {},
        )
        pointer = pack_release(release, key)
        if len(pointer) > MOST_POINTER_BYTES:
            raise AutotuneError(
                f"{place.shown}: {len(release.artifacts):,} environments are more than one release can name"
            )
        place.put(POINTER, pointer)
    return Shared(
        place=place.shown,
        sequence=release.sequence,
        symbols=len({entry.symbol for entry in snapshot.entries} | {pin.symbol for pin in snapshot.pins}),
        environments=len(release.artifacts),
        files=upload.listed,
        put_blobs=upload.blobs,
        put_bytes=upload.size,
        key=key.public.name,
        said=tuple(upload.said),
    )


def _lists(upload: _Upload, snapshot: Snapshot, before: Release | None) -> dict[str, Blob]:
    """By environment the list of what its processes start from, which is put there with all it names."""
    lists = {}
    for fingerprint, settings in settings_wanted(snapshot, environments_here()).items():
        folders = _earlier(upload.place, before, fingerprint, settings) | _stored(
            fingerprint, settings, upload
        )
        if folders:
            lists[fingerprint] = upload.put(pack_list(folders))
            upload.listed += sum(map(len, folders.values()))
    return lists


def _document(location: str) -> bytes:
    path = snapshot_path(location)
    try:
        document, origin = read_document(path)
    except SnapshotError as error:
        if error.reason == "missing":
            raise AutotuneError(
                f"{path}: nothing is published yet; `autotune run --symbol AMD` promotes and publishes"
            ) from None
        raise
    if origin is not None:
        raise UsageError(f"{path} was fetched from {origin.source}: share where it is tuned")
    if len(document) > MOST_DOCUMENT_BYTES:
        raise AutotuneError(f"{path} is larger than the {MOST_DOCUMENT_BYTES:,} bytes that hosts take")
    return document


def _before(place: Place, key: SigningKey) -> Release | None:
    """The release that lies there; None where there is none, or only what is damaged.

    One that a later version wrote is not replaced. Raises ``BadRelease`` for it.
    """
    where = f"{place.shown}/{POINTER}"
    try:
        release, _ = unpack_release(read_whole(place, POINTER, MOST_POINTER_BYTES), (key.public,), where)
    except NewerRelease:
        raise
    except (Missing, BadRelease):
        return None
    except BadSignature:
        raise UsageError(
            f"{where} is of another key than {key.public.name}: remove it when that key is no longer to be used, or "
            "share to another place"
        ) from None
    return release


def _earlier(
    place: Place, before: Release | None, fingerprint: str, wanted: frozenset[str]
) -> dict[str, Files]:
    """What the release before has of an environment, as far as it is still wanted and can be read."""
    blob = None if before is None else before.artifacts.get(fingerprint)
    if blob is None:
        return {}
    try:
        listed = unpack_list(read_blob(place, blob), place.shown)
    except (BadRelease, PlaceError):
        return {}
    return {key: files for key, files in listed.items() if key in wanted}


def _stored(fingerprint: str, wanted: frozenset[str], upload: _Upload) -> dict[str, Files]:
    """What this machine's cache has of an environment, verified, and put there."""
    root = cache_folder().absolute()
    found = {}
    for key in sorted(wanted):
        if not settings_folder(root, fingerprint, key).is_dir():
            continue
        try:
            files = _put_folder(compile_cache(fingerprint, key), upload)
        except (Damaged, CacheRefused) as error:  # processes that start from it make it anew
            upload.said.append(f"{error}; it is not shared")
            continue
        if files:
            found[key] = files
    return found


def _put_folder(folder: Path, upload: _Upload) -> Files:
    with failing_as(CacheRefused, f"compile cache {folder} cannot be read"):
        remove_left_behind(folder.parent, _READ)  # of one that was killed
        into = upload.until_put.enter_context(held_folder(_READ, folder.parent))
        files = {}
        for name, (sha256, size) in link_listed(folder, into).items():
            path, blob = into / name, Blob(sha256=sha256, bytes=size)
            upload.put_blob(blob, path)
            files[name] = (blob, bool(path.stat().st_mode & 0o100))
        return files
