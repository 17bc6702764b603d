"""Releases: unsigned bytes are refused, and signed ones that say anything are refused or keep to their bounds."""

from __future__ import annotations

import functools
import hashlib
import json
import sqlite3
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from pathlib import PurePosixPath

from autotuner import lookup
from autotuner.errors import AutotuneError
from autotuner.sharing.keys import SigningKey, make_key, read_public_keys, read_signing_key
from autotuner.sharing.release import Blob, Release, pack_list, pack_release, unpack_list, unpack_release
from storage.errors import SnapshotError
from storage.origin import Origin, write_origin
from storage.snapshot import fill_document, packed_document, read_document
from tests.faults.fuzzing import json_mutation, scratch
from tests.faults.fuzzing.verdicts import check, check_line, refused_with

SECONDS = 2.0  # parsed five times
mutated = json_mutation.document
_NOW = datetime(2026, 5, 4, tzinfo=UTC)
_BLOB = Blob(sha256="a" * 64, bytes=7)


@functools.cache
def _key() -> SigningKey:
    path = scratch.empty_folder("releases/key") / "key"
    make_key(path)
    return read_signing_key(path)


def seeds() -> tuple[bytes, ...]:
    release = Release(sequence=7, released_at=_NOW, snapshot=_BLOB, artifacts={"0" * 16: _BLOB})
    files = {"packages/one.so": (_BLOB, True), "answers/x": (_BLOB, False)}
    return (
        pack_release(release, _key()).split(b"\n", 3)[3],
        pack_list({"mode=default": files}),
        _origin_document(),
        str(_key().public).encode(),
        pack_release(release, _key()),
    )


def one(data: bytes) -> None:
    with refused_with(AutotuneError):
        unpack_release(data, (_key().public,), "it")
    with refused_with(AutotuneError):
        unpack_release(_signed(data), (_key().public,), "it")
    with refused_with(AutotuneError):
        for files in unpack_list(data, "it").values():
            for name, (blob, _) in files.items():
                inside = not name.startswith("/") and ".." not in PurePosixPath(name).parts
                check(inside and name.isprintable() and len(blob.sha256) == 64, f"{name!a} is listed")
    with refused_with(AutotuneError):
        read_public_keys(data.decode(errors="replace"))
    _as_origin(data)


def _signed(payload: bytes) -> bytes:
    """As whoever has the key can sign anything."""
    head = b"autotune release 1\nkey " + _key().public.name.encode() + b"\n"
    signature = _key().sign(head + payload).hex().encode()
    return head + b"signature " + signature + b"\n" + payload


def _origin_document() -> bytes:
    origin = Origin(source="s3://x", as_of=_NOW, fetched_at=_NOW, sequence=7, key="0" * 16, max_age_s=60.0)
    with closing(sqlite3.connect(":memory:")) as connection:
        write_origin(connection, origin)
        document: bytes = connection.execute("SELECT document FROM origin").fetchone()[0]
    check(json.loads(document)["sequence"] == 7, "it is JSON")
    return document


def _as_origin(data: bytes) -> None:
    """Under the right digest in a snapshot: that is read or refused, and a lookup never raises."""
    folder = scratch.empty_folder("releases/snapshot")
    path = folder / "autotune.snapshot.db"
    path.touch()
    fill_document(path, packed_document((), (), generation_time=_NOW))
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE origin (sha256 TEXT NOT NULL, document BLOB NOT NULL)")
        connection.execute("INSERT INTO origin VALUES (?, ?)", (hashlib.sha256(data).hexdigest(), data))
    with suppress(SnapshotError):
        origin = read_document(path)[1]
        check(origin is not None and origin.as_of + timedelta(0) == origin.as_of, "an origin")
    for reason in lookup("AMD", db=str(folder / "autotune.db")).reasons:
        check_line(reason)
