from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import stat
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from autotuner.environment import current_environment
from autotuner.errors import UsageError
from autotuner.paths import snapshot_path
from autotuner.serving.artifacts import compile_cache
from autotuner.serving.manifest import MANIFEST, link_verified, listed_files
from autotuner.sharing.fetching import read_whole
from autotuner.sharing.places import Folder, PlaceError, WebPlace
from autotuner.sharing.release import Blob, Files, pack_list, pack_release, unpack_release
from autotuner.sharing.share import share
from autotuner.sharing.sync import sync_release
from tests.support.loading_artifacts import real_artifact
from tests.support.releases import HOURS, Desk, built
from tests.support.snapshots import BF16, COMPILED, elsewhere, entry, pin, published
from toto_core.settings import RuntimeSettings

HERE = current_environment().fingerprint
FILES = {"packages/one.so": b"machine code", "answers/trials-x": b"an answer", "inductor/a b/c.py": b"pass"}


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    """One whose tuning machine has built what AMD runs; the variable names the cache of the one at work."""
    desk = Desk(tmp_path)
    monkeypatch.setenv("AUTOTUNE_CACHE", str(tmp_path / "tuned" / "cache"))
    desk.publish(entry(settings=COMPILED))
    built(HERE, COMPILED.key, tmp_path, FILES)
    return desk


@pytest.fixture
def to_the_host(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Path]:
    """From then on this is the host, whose cache is empty; where its artifacts are to lie."""

    def become() -> Path:
        monkeypatch.setenv("AUTOTUNE_CACHE", str(desk.home / "host" / "cache"))
        return compile_cache(HERE, COMPILED.key)

    return become


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != MANIFEST
    }


def test_what_was_built_there_lies_here_as_if_it_was_built_here(
    desk: Desk, to_the_host: Callable[[], Path], tmp_path: Path
) -> None:
    shared = desk.share()
    assert (shared.environments, shared.files) == (1, 3)
    folder = to_the_host()
    before = os.umask(0)
    try:
        synced = desk.sync()
    finally:
        os.umask(before)

    assert (synced.taken.folders, synced.taken.files, synced.taken.said) == (1, 3, ())
    assert contents(folder) == FILES
    for path in (folder, *folder.rglob("*")):
        private = 0o700 if path.is_dir() or path.suffix == ".so" else 0o600
        assert stat.S_IMODE(path.stat().st_mode) == private, path
    assert link_verified(folder, tmp_path / "linked") is not None
    assert [each.name for each in folder.parent.iterdir() if each.name.startswith("run-")] == []


def test_what_is_here_is_not_fetched_again_and_what_is_there_not_put_again(
    desk: Desk, to_the_host: Callable[[], Path]
) -> None:
    desk.share()
    assert desk.share().put_blobs == 0
    folder = to_the_host()
    desk.sync()
    for blob in desk.blobs():
        if blob.read_bytes() in FILES.values():
            blob.unlink()
    again = desk.sync()
    assert (again.taken.files, again.taken.said) == (0, ())
    (folder / "packages/one.so").unlink()
    shutil.rmtree(folder)
    assert "it is not there" in desk.sync().taken.said[0]


def test_artifacts_of_other_environments_and_of_settings_nobody_runs_stay_away(
    desk: Desk, to_the_host: Callable[[], Path], tmp_path: Path
) -> None:
    other = elsewhere(torch="9.9.9")
    built(other.fingerprint, BF16.key, tmp_path / "other", {"packages/two.so": b"other code"})
    built(HERE, BF16.key, tmp_path / "unused", {"packages/three.so": b"unused"})
    desk.publish(entry(settings=COMPILED), entry("NVDA", settings=BF16, environment=other))
    shared = desk.share()
    assert (shared.environments, shared.files) == (2, 4)
    to_the_host()
    desk.sync()

    cache = desk.home / "host" / "cache"
    assert not (cache / other.fingerprint).exists()
    assert b"unused" not in contents(cache).values()


def test_pinned_settings_come_along(desk: Desk, to_the_host: Callable[[], Path], tmp_path: Path) -> None:
    built(HERE, BF16.key, tmp_path / "pinned", {"packages/two.so": b"pinned"})
    published(desk.tuned, entry(settings=COMPILED), pins=(pin(settings=BF16),))
    desk.share()
    to_the_host()
    assert desk.sync().taken.folders == 2
    assert contents(compile_cache(HERE, BF16.key)) == {"packages/two.so": b"pinned"}


def test_a_second_machine_adds_its_environment_and_keeps_that_of_the_first(
    desk: Desk, to_the_host: Callable[[], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.share()
    monkeypatch.setenv("AUTOTUNE_CACHE", str(desk.home / "second" / "cache"))  # built nothing of this
    assert desk.share().files == 3
    folder = to_the_host()
    desk.sync()
    assert contents(folder) == FILES


def test_a_damaged_artifact_is_not_shared(desk: Desk) -> None:
    stored = compile_cache(HERE, COMPILED.key)
    (stored / "packages/one.so").write_bytes(b"machine c0de")
    shared = desk.share()
    assert shared.files == 0
    (said,) = shared.said
    assert "is not what was stored: its checksum differs; it is not shared" in said


@pytest.mark.parametrize("how", ["cut", "flipped", "swapped"])
def test_a_forged_artifact_is_told_of_and_nothing_of_its_configuration_is_kept(
    desk: Desk, to_the_host: Callable[[], Path], how: str
) -> None:
    desk.share()
    blob = desk.place / Blob(sha256=hashlib.sha256(b"machine code").hexdigest(), bytes=12).name
    blob.write_bytes({"cut": b"machine", "flipped": b"machine c0de", "swapped": b"an answer"}[how])
    folder = to_the_host()
    synced = desk.sync()

    (said,) = synced.taken.said
    assert "cut short" in said or "checksum differs" in said
    assert contents(folder) == {}
    assert link_verified(folder, desk.home / "linked") is None
    assert [each.name for each in folder.parent.iterdir() if each.name.startswith("run-")] == []
    assert synced.changed  # settings serve without it
    assert snapshot_path(desk.host).exists()


def test_what_changes_while_it_is_fetched_is_refused_or_whole(
    desk: Desk, to_the_host: Callable[[], Path]
) -> None:
    desk.share()
    good = {hashlib.sha256(content).hexdigest() for content in FILES.values()}
    folder = to_the_host()

    class Changing(Folder):
        """Gives another content from the second part on, and whenever it is asked again."""

        def read(self, name: str) -> Iterator[bytes]:
            content = b"".join(super().read(name))
            yield content[:3]
            yield content[3:] if name.rpartition("/")[2] not in good else content[3:].swapcase()

    synced = sync_release(desk.host, Changing(desk.place), desk.public, HOURS, now=datetime.now(UTC))
    assert len(synced.taken.said) == 1
    assert contents(folder) == {}


@pytest.mark.parametrize(
    "name",
    [
        "../x.so",
        "/tmp/x.so",
        "a/../../x.so",
        "a//x.so",
        "./x.so",
        MANIFEST,
        "a\0b",
        "a\nb",
        "",
        "..",
        "x" * 600,
    ],
)
def test_a_list_that_names_a_file_elsewhere_is_refused_although_it_is_signed(
    desk: Desk, to_the_host: Callable[[], Path], name: str
) -> None:
    desk.share()
    release_a_list(
        desk, {COMPILED.key: {name: (Blob(sha256=hashlib.sha256(b"x").hexdigest(), bytes=1), True)}}
    )
    folder = to_the_host()
    before = {path for path in desk.home.rglob("*") if path.name.startswith("x")}

    (said,) = desk.sync().taken.said
    assert "not of the form" in said
    assert contents(folder) == {}
    assert {path for path in desk.home.rglob("*") if path.name.startswith("x")} == before


def test_more_than_the_disk_holds_is_refused_before_anything_is_fetched(
    desk: Desk, to_the_host: Callable[[], Path]
) -> None:
    desk.share()
    release_a_list(desk, {COMPILED.key: {"x.so": (Blob(sha256="a" * 64, bytes=1 << 39), True)}})
    to_the_host()
    (said,) = desk.sync().taken.said
    assert "make room, or name another folder in AUTOTUNE_CACHE" in said


def test_a_cache_that_others_can_write_to_gets_nothing(desk: Desk, to_the_host: Callable[[], Path]) -> None:
    desk.share()
    folder = to_the_host()
    folder.parent.chmod(0o777)
    (said,) = desk.sync().taken.said
    assert "is writable by others" in said
    assert contents(folder) == {}


def test_a_link_in_the_place_of_a_file_is_replaced_and_not_followed(
    desk: Desk, to_the_host: Callable[[], Path]
) -> None:
    desk.share()
    folder = to_the_host()
    victim = desk.home / "victim"
    victim.write_bytes(b"mine")
    (folder / "packages").mkdir(mode=0o700)
    (folder / "packages" / "one.so").symlink_to(victim)
    desk.sync()
    assert victim.read_bytes() == b"mine"
    assert contents(folder) == FILES
    assert not (folder / "packages" / "one.so").is_symlink()


def test_a_web_server_gives_the_same_and_takes_nothing(desk: Desk, to_the_host: Callable[[], Path]) -> None:
    desk.share()

    class Guarded(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            if self.headers.get("Authorization") == f"Basic {base64.b64encode(b'ann:p@ss').decode()}":
                super().do_GET()
            else:
                self.send_error(401)

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Guarded, directory=str(desk.place))) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        web = WebPlace(f"http://ann:p%40ss@127.0.0.1:{server.server_port}")
        assert "p%40ss" not in web.shown
        with pytest.raises(PlaceError, match="HTTP 401"):
            read_whole(WebPlace(f"http://127.0.0.1:{server.server_port}/"), "release", 1000)
        with pytest.raises(UsageError, match="read alone"):
            share(desk.tuned, web, desk.key, now=datetime.now(UTC))
        folder = to_the_host()
        synced = sync_release(desk.host, web, desk.public, HOURS, now=datetime.now(UTC))
        server.shutdown()
        thread.join()
    assert (synced.taken.files, synced.taken.said) == (3, ())
    assert contents(folder) == FILES


def release_a_list(desk: Desk, folders: dict[str, Files]) -> None:
    """Sign a release whose list of this environment says anything."""
    release, _ = unpack_release(desk.pointer.read_bytes(), desk.public, "it")
    content = pack_list(folders)
    blob = Blob(sha256=hashlib.sha256(content).hexdigest(), bytes=len(content))
    Folder(desk.place).put(blob.name, content)
    changed = replace(release, sequence=release.sequence + 1, artifacts={HERE: blob})
    desk.pointer.write_bytes(pack_release(changed, desk.key))


@pytest.mark.exhaustive
def test_a_real_library_built_elsewhere_is_loaded_without_a_compiler(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = real_artifact()
    settings = RuntimeSettings.from_dict({"compile_mode": "default", "num_threads": 1})
    desk = Desk(tmp_path)
    monkeypatch.setenv("AUTOTUNE_CACHE", str(real.folder / "cache"))
    desk.publish(entry(settings=settings))
    shared = desk.share()
    assert shared.files >= 1

    host = tmp_path / "elsewhere"
    monkeypatch.setenv("AUTOTUNE_CACHE", str(host / "cache"))
    desk.sync()
    assert listed_files(compile_cache(HERE, settings.key))
    done = real.load(host)
    assert real.fault(done) == ""
    told = json.loads(done.out)
    assert (told["mode"], told["warnings"]) == ("default", [])
    assert told["hits"] >= 1
    assert told["mapped"]
    assert os.path.commonpath([*told["mapped"], str(host)]) == str(host)
