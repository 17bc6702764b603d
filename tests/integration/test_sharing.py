from __future__ import annotations

import os
import sqlite3
import stat
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from autotuner import lookup
from autotuner.errors import AutotuneError, UsageError
from autotuner.paths import snapshot_path
from autotuner.sharing.keys import BadSignature, read_public_keys, read_signing_key
from autotuner.sharing.places import Folder, place_at
from autotuner.sharing.release import BadRelease, Blob, Release, pack_release
from autotuner.sharing.share import share
from autotuner.sharing.sync import OlderRelease, sync_release
from storage.errors import SnapshotError
from storage.snapshot import read_snapshot, state_of_parts
from tests.support.releases import HOURS, Desk, signing_key
from tests.support.snapshots import BF16, COMPILED, entry, published


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.setenv("AUTOTUNE_CACHE", str(tmp_path / "cache"))
    for name in ("TOTO_DISABLE_COMPILE", "TOTO_COMPILE_MODE", "AUTOTUNE_DB"):
        monkeypatch.delenv(name, raising=False)
    return Desk(tmp_path)


def refusal(kind: type[AutotuneError], desk: Desk) -> str:
    """The one line with which a host refuses what lies at its place; its snapshot is as before."""
    path = snapshot_path(desk.host)
    before = path.read_bytes() if path.exists() else None
    with pytest.raises(kind) as caught:
        desk.sync()
    assert "\n" not in str(caught.value)
    assert (path.read_bytes() if path.exists() else None) == before
    assert not path.parent.exists() or [each for each in path.parent.iterdir() if each != path] == []
    return str(caught.value)


def test_a_host_looks_up_what_was_tuned_elsewhere_and_knows_how_old_it_is(desk: Desk) -> None:
    desk.publish(entry(), entry("NVDA", number=2))
    desk.share(ago=3 * 3600)
    synced = desk.sync()

    assert (synced.changed, synced.symbols) == (True, 2)
    assert stat.S_IMODE(snapshot_path(desk.host).stat().st_mode) == 0o600
    found = lookup("AMD", db=desk.host)
    assert (found.settings, found.source) == (BF16, "promotion")
    assert found.reasons[0].startswith("snapshot: 3 h old (20")
    assert f"from {desk.place})" in found.reasons[0]
    assert read_snapshot(snapshot_path(desk.host)).entries == read_snapshot(snapshot_path(desk.tuned)).entries


def test_a_lookup_says_when_the_snapshot_has_become_older_than_it_may_be(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.publish()
    desk.share()
    desk.sync()
    young = lookup("AMD", db=desk.host)
    assert lookup("AMD", db=desk.host).reasons == young.reasons
    now = datetime.now(UTC).timestamp()
    monkeypatch.setattr("time.time", lambda: now + 7 * 3600)
    old = lookup("AMD", db=desk.host)

    assert "older than the 6 h it may be" in old.reasons[0]
    assert "older than" not in young.reasons[0]
    assert old.settings == BF16


def test_a_new_promotion_arrives_and_nothing_new_leaves_the_file_alone(desk: Desk) -> None:
    desk.publish()
    desk.share()
    desk.sync()
    before = snapshot_path(desk.host).stat()
    assert not desk.sync().changed
    assert snapshot_path(desk.host).stat().st_ino == before.st_ino

    desk.publish(entry(settings=COMPILED, number=2))
    shared = desk.share()
    assert shared.put_blobs == 1
    assert desk.sync().changed
    assert lookup("AMD", db=desk.host).settings == COMPILED


def test_parts_that_are_damaged_or_missing_come_back_with_the_next_fetch(desk: Desk) -> None:
    desk.publish()
    desk.share()
    desk.sync()
    path = snapshot_path(desk.host)
    for damage, state in (("UPDATE parts SET sha256 = 'x'", "damaged"), ("DROP TABLE parts", "none")):
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute(damage)
        assert state_of_parts(path) == state
        assert not desk.sync().changed
        assert state_of_parts(path) == "whole"


def test_a_release_without_news_says_that_there_is_none_and_puts_nothing_but_itself(desk: Desk) -> None:
    desk.publish()
    desk.share(ago=3600)
    first = desk.sync()
    shared = desk.share()
    second = desk.sync()

    assert (shared.put_blobs, shared.put_bytes) == (0, 0)
    assert not second.changed
    assert second.origin.as_of > first.origin.as_of
    assert second.origin.sequence > first.origin.sequence


def test_without_a_configured_key_nothing_is_fetched(desk: Desk) -> None:
    desk.publish()
    desk.share()
    with pytest.raises(UsageError, match=r"no key is configured.*autotune share --new-key"):
        desk.sync(keys=())
    assert not snapshot_path(desk.host).exists()


def test_a_release_of_another_key_is_refused_and_one_of_several_keys_will_do(
    desk: Desk, tmp_path: Path
) -> None:
    desk.publish()
    desk.share(key=signing_key(tmp_path / "other.key"))
    assert f"configured is {desk.key.public.name}: nothing of it is used" in refusal(BadSignature, desk)
    other = read_signing_key(tmp_path / "other.key").public

    assert desk.sync(keys=(*desk.public, other)).origin.key == other.name


def test_a_release_signed_with_another_key_under_the_configured_ones_name_is_forged(
    desk: Desk, tmp_path: Path
) -> None:
    desk.publish()
    other = signing_key(tmp_path / "other.key")
    desk.share(key=other)
    content = desk.pointer.read_bytes().replace(other.public.name.encode(), desk.key.public.name.encode(), 1)
    desk.pointer.write_bytes(content)

    assert "forged or damaged" in refusal(BadSignature, desk)


def test_every_changed_and_every_missing_byte_of_a_pointer_is_noticed(desk: Desk) -> None:
    desk.publish()
    desk.share()
    whole = desk.pointer.read_bytes()
    for place in range(0, len(whole), 7):
        desk.pointer.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises((BadRelease, BadSignature)):
            desk.sync()
        desk.pointer.write_bytes(whole[:place])
        with pytest.raises((BadRelease, BadSignature)):
            desk.sync()
    desk.pointer.write_bytes(whole + b" ")
    assert "forged or damaged" in refusal(BadSignature, desk)


def test_a_pointer_without_end_is_not_read_to_its_end(desk: Desk) -> None:
    desk.place.mkdir()
    with desk.pointer.open("wb") as file:
        file.truncate(1 << 40)
    assert "longer than the 1,048,576 bytes it may have" in refusal(BadRelease, desk)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("cut", "is cut short: it lacks"),
        ("flipped", "its checksum differs"),
        ("longer", "longer than"),
        ("gone", "it is not there"),
        ("a pipe", "it is not a file"),
    ],
)
def test_a_document_that_is_not_the_one_that_was_signed_is_refused(
    desk: Desk, damage: str, said: str
) -> None:
    desk.publish()
    desk.share()
    desk.sync()
    desk.publish(entry(settings=COMPILED, number=2))
    known = desk.blobs()
    desk.share()
    (blob,) = set(desk.blobs()) - set(known)
    content = blob.read_bytes()
    blob.unlink()
    if damage == "a pipe":
        os.mkfifo(blob)
    elif damage != "gone":
        changed = {"cut": content[:-5], "flipped": content[:-5] + b"00000", "longer": content + b" "}
        blob.write_bytes(changed[damage])

    assert said in refusal(AutotuneError, desk)
    assert lookup("AMD", db=desk.host).settings == BF16


def test_blobs_that_changed_places_are_refused(desk: Desk) -> None:
    desk.publish()
    desk.share()
    desk.publish(entry(settings=COMPILED, number=2))
    desk.share()
    one, other = desk.blobs()
    content = one.read_bytes(), other.read_bytes()
    other.write_bytes(content[0])
    one.write_bytes(content[1])

    refusal(BadRelease, desk)


def test_an_older_release_that_is_put_back_is_refused_until_a_person_allows_it(desk: Desk) -> None:
    desk.publish()
    desk.share(ago=60)
    old = desk.pointer.read_bytes()
    desk.publish(entry(settings=COMPILED, number=2))
    desk.share()
    desk.sync()
    desk.pointer.write_bytes(old)

    assert "someone put an old one back; --allow-older" in refusal(OlderRelease, desk)
    assert lookup("AMD", db=desk.host).settings == COMPILED
    desk.sync(replace(HOURS, allow_older=True))
    assert lookup("AMD", db=desk.host).settings == BF16


def test_a_sharer_whose_clock_went_back_or_whose_place_was_emptied_still_releases_newer_ones(
    desk: Desk,
) -> None:
    desk.publish()
    first = desk.share()
    assert desk.share(ago=3600).sequence == first.sequence + 1
    desk.sync()
    desk.pointer.unlink()
    assert desk.share().sequence > first.sequence


def test_a_release_of_tomorrow_is_refused(desk: Desk) -> None:
    desk.publish()
    desk.share(ago=-2 * 3600)
    assert "which is to come: set the clock" in refusal(BadRelease, desk)


@pytest.mark.parametrize(
    "changes",
    [
        {"sequence": True},
        {"sequence": -1},
        {"sequence": 1 << 80},
        {"snapshot": Blob(sha256="../../etc/passwd", bytes=3)},
        {"snapshot": Blob(sha256="a" * 64, bytes=1 << 50)},
        {"artifacts": {"../..": Blob(sha256="a" * 64, bytes=3)}},
    ],
)
def test_even_a_signed_release_is_bounded_and_names_nothing_elsewhere(
    desk: Desk, changes: dict[str, object]
) -> None:
    sound = Release(sequence=1, released_at=datetime.now(UTC), snapshot=Blob(sha256="b" * 64, bytes=3))
    desk.place.mkdir()
    desk.pointer.write_bytes(pack_release(replace(sound, **changes), desk.key))  # type: ignore[arg-type]

    assert "not of the form" in refusal(BadRelease, desk)


def test_a_place_of_another_key_is_not_overwritten(desk: Desk, tmp_path: Path) -> None:
    desk.publish()
    desk.share()
    before = desk.pointer.read_bytes()
    with pytest.raises(UsageError, match="of another key"):
        desk.share(key=signing_key(tmp_path / "other.key"))
    assert desk.pointer.read_bytes() == before


def test_what_was_fetched_is_not_shared_on_and_what_was_published_here_is_not_replaced(desk: Desk) -> None:
    desk.publish()
    desk.share()
    desk.sync()
    with pytest.raises(UsageError, match="share where it is tuned"):
        share(desk.host, Folder(desk.place), desk.key, now=datetime.now(UTC))
    published(desk.host, entry("NVDA"))
    assert "--replace" in refusal(UsageError, desk)
    desk.sync(replace(HOURS, replace=True))
    assert lookup("AMD", db=desk.host).source == "promotion"


def test_a_damaged_snapshot_here_is_no_reason_not_to_fetch_one(desk: Desk) -> None:
    desk.publish()
    desk.share()
    desk.sync()
    path = snapshot_path(desk.host)
    path.write_bytes(path.read_bytes()[:3000])

    assert desk.sync().changed
    assert lookup("AMD", db=desk.host).settings == BF16


@pytest.mark.parametrize(
    "text", ["ed25519:", "ed25519:AAAA", "rsa:AAAA", "ed25519:\u00e9" + "A" * 43, "x" * 5000]
)
def test_text_that_is_no_key_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_public_keys(text)
    assert len(str(caught.value)) < 300


def test_an_age_or_a_sequence_that_was_changed_makes_the_snapshot_damaged(desk: Desk) -> None:
    desk.publish()
    desk.share(ago=7 * 3600)
    desk.sync()
    path = snapshot_path(desk.host)
    whole = path.read_bytes()
    for before, after in ((b'"max_age_s":21600', b'"max_age_s":91600'), (b'"sequence":1', b'"sequence":2')):
        assert before in whole
        path.write_bytes(whole.replace(before, after))
        with pytest.raises(SnapshotError) as caught:
            read_snapshot(path)
        assert caught.value.reason == "truncated/corrupt"
        assert lookup("AMD", db=desk.host).source == "default"


def test_a_private_key_that_others_can_read_is_not_used(desk: Desk, tmp_path: Path) -> None:
    path = tmp_path / "share.key"
    public = signing_key(path).public
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert read_public_keys(f"{public}, {public}") == (public, public)
    with pytest.raises(UsageError, match="is there already"):
        signing_key(path)
    path.chmod(0o640)
    with pytest.raises(UsageError, match="can be read by others"):
        read_signing_key(path)
    path.chmod(0o600)
    path.write_text("no key")
    with pytest.raises(UsageError, match="no private key"):
        read_signing_key(path)
    with pytest.raises(UsageError, match="--new-key"):
        read_signing_key(tmp_path / "none")


def test_places_are_named_as_people_write_them(tmp_path: Path) -> None:
    assert place_at(f"file://{tmp_path}/a%20b").shown == f"{tmp_path}/a b"
    assert place_at(str(tmp_path)).shown == str(tmp_path)
    for wrong in (
        "file://host/x",
        "s3://",
        "nonsense://x",
        "~nobodyhere/x",
        "https://h:x/",
        "https://h/?a=b",
    ):
        with pytest.raises(UsageError) as caught:
            place_at(wrong)
        assert "\n" not in str(caught.value)


def test_what_fsspec_reaches_is_a_place_too(desk: Desk) -> None:
    import fsspec

    desk.publish()
    url = f"memory://{desk.home.name}"
    share(desk.tuned, place_at(url), desk.key, now=datetime.now(UTC) - timedelta(minutes=5))
    shared = share(desk.tuned, place_at(url), desk.key, now=datetime.now(UTC))
    assert shared.put_blobs == 0
    synced = sync_release(desk.host, place_at(url), desk.public, HOURS, now=datetime.now(UTC))
    assert synced.changed
    assert synced.origin.source == url
    fsspec.filesystem("memory").rm(f"/{desk.home.name}", recursive=True)
    with pytest.raises(AutotuneError, match="it is not there"):
        sync_release(desk.host, place_at(url), desk.public, HOURS, now=datetime.now(UTC))
