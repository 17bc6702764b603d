"""Releases in a bucket: s3fs against moto's S3 server, both real but for the store of the server."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from autotuner.environment import current_environment
from autotuner.errors import AutotuneError
from autotuner.serving.artifacts import compile_cache
from autotuner.sharing.places import PlaceError, place_at
from autotuner.sharing.release import BadRelease, Blob
from autotuner.sharing.share import share
from autotuner.sharing.sync import sync_release
from tests.support.releases import HOURS, Desk, built
from tests.support.snapshots import COMPILED, entry

s3fs = pytest.importorskip("s3fs")
moto = pytest.importorskip("moto.server")

HERE = current_environment().fingerprint
FILES = {"packages/one.so": b"machine code", "answers/x": b"an answer"}
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "one")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    s3fs.S3FileSystem.clear_instance_cache()
    s3fs.S3FileSystem().makedirs("desk", exist_ok=True)
    yield "s3://desk/autotune"
    s3fs.S3FileSystem().rm("desk/autotune", recursive=True)
    s3fs.S3FileSystem.clear_instance_cache()
    server.stop()


def test_a_bucket_is_a_place_of_releases(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = Desk(tmp_path)
    monkeypatch.setenv("AUTOTUNE_CACHE", str(tmp_path / "tuned" / "cache"))
    desk.publish(entry(settings=COMPILED))
    built(HERE, COMPILED.key, tmp_path, FILES)
    with pytest.raises(AutotuneError, match="it is not there"):
        sync_release(desk.host, place_at(bucket), desk.public, HOURS, now=datetime.now(UTC))
    first = share(desk.tuned, place_at(bucket), desk.key, now=datetime.now(UTC))
    again = share(desk.tuned, place_at(bucket), desk.key, now=datetime.now(UTC))
    assert (first.put_blobs, again.put_blobs, again.files) == (4, 0, 2)

    monkeypatch.setenv("AUTOTUNE_CACHE", str(tmp_path / "host" / "cache"))
    synced = sync_release(desk.host, place_at(bucket), desk.public, HOURS, now=datetime.now(UTC))
    assert (synced.changed, synced.taken.files, synced.taken.said) == (True, 2, ())
    assert (compile_cache(HERE, COMPILED.key) / "packages/one.so").read_bytes() == b"machine code"

    code = Blob(sha256=hashlib.sha256(b"machine code").hexdigest(), bytes=12)
    s3fs.S3FileSystem().pipe(f"desk/autotune/{code.name}", b"machine c0de")
    monkeypatch.setenv("AUTOTUNE_CACHE", str(tmp_path / "other" / "cache"))
    (said,) = sync_release(desk.host, place_at(bucket), desk.public, HOURS, now=datetime.now(UTC)).taken.said
    assert "checksum differs" in said
    s3fs.S3FileSystem().pipe("desk/autotune/release", b"forged")
    with pytest.raises(BadRelease, match="no release of autotune"):
        sync_release(desk.host, place_at(bucket), desk.public, HOURS, now=datetime.now(UTC))


def test_a_bucket_that_is_none_and_a_server_that_is_away_are_told_in_one_line(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = Desk(tmp_path)
    desk.publish()
    share(desk.tuned, place_at(bucket), desk.key, now=datetime.now(UTC))
    here = s3fs.S3FileSystem()
    with pytest.raises(PlaceError) as caught:
        share(desk.tuned, place_at("s3://nobodys/autotune"), desk.key, now=datetime.now(UTC))
    assert "\n" not in str(caught.value)
    assert not here.exists("nobodys")
    endpoint = os.environ["AWS_ENDPOINT_URL"]
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(PlaceError, match="s3://desk/autotune/release cannot be read") as caught:
        sync_release(desk.host, place_at(bucket), desk.public, HOURS, now=datetime.now(UTC))
    assert "\n" not in str(caught.value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    s3fs.S3FileSystem.clear_instance_cache()
