from __future__ import annotations

import json
import os
import platform
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import PIPE

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotuner.environment import current_environment
from autotuner.machine.process import Owner
from autotuner.serving.artifact_loading import LoadArtifacts
from autotuner.serving.artifacts import CacheRefused, compile_cache, store, wipe, workplace
from autotuner.serving.manifest import Damaged, link_verified
from tests.support.storage_samples import NOBODY, shared_folder, unprivileged
from toto_core.settings import RuntimeSettings

PRINT = "0123456789abcdef"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AUTOTUNE_CACHE", str(tmp_path / "new" / "cache"))
    return tmp_path / "new" / "cache"


@pytest.fixture
def open_folder() -> Iterator[Path]:
    with shared_folder() as folder:
        yield folder


def _refusal(key: str = "mode=default") -> str:
    with pytest.raises(CacheRefused) as caught:
        compile_cache(PRINT, key)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_every_level_is_made_private_whatever_the_umask(root: Path) -> None:
    before = os.umask(0)
    try:
        folder = compile_cache(PRINT, "mode=default")
    finally:
        os.umask(before)

    assert folder.parent == root / PRINT
    for level in (root.parent, root, root / PRINT, folder):
        assert stat.S_IMODE(level.stat().st_mode) == 0o700


def test_the_same_settings_share_a_folder_and_others_have_their_own(root: Path) -> None:
    first = compile_cache(PRINT, "mode=default")
    (first / "kernel.so").write_bytes(b"code")

    assert compile_cache(PRINT, "mode=default") == first
    assert (first / "kernel.so").read_bytes() == b"code"
    others = {compile_cache(PRINT, "mode=max-autotune"), compile_cache(PRINT[::-1], "mode=default")}
    assert len(others | {first}) == 3


def test_a_key_of_any_text_stays_inside_the_cache(root: Path) -> None:
    assert compile_cache(PRINT, "../../etc/\0").parent == root / PRINT


@pytest.mark.parametrize("fingerprint", ["..", "", "/etc", "0123456789ABCDEF", PRINT + "\n", PRINT + "0"])
def test_a_fingerprint_that_is_none_is_refused_before_anything_is_made(root: Path, fingerprint: str) -> None:
    with pytest.raises(CacheRefused, match="no environment fingerprint"):
        compile_cache(fingerprint, "mode=default")
    assert not root.exists()


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_a_link_at_any_level_is_refused(root: Path, tmp_path: Path, depth: int) -> None:
    folder = compile_cache(PRINT, "mode=default")
    level = (root, root / PRINT, folder)[depth]
    level.rename(tmp_path / "real")
    level.symlink_to(tmp_path / "real")

    assert f"{level} is a link" in _refusal()


@pytest.mark.parametrize("depth", [0, 1, 2])
@pytest.mark.parametrize("mode", [0o720, 0o702, 0o777])
def test_a_level_that_others_can_write_is_refused(root: Path, depth: int, mode: int) -> None:
    folder = compile_cache(PRINT, "mode=default")
    level = (root, root / PRINT, folder)[depth]
    level.chmod(mode)

    assert f"{level} is writable by others" in _refusal()


def test_a_level_that_others_can_only_read_is_used(root: Path) -> None:
    folder = compile_cache(PRINT, "mode=default")
    root.chmod(0o755)

    assert compile_cache(PRINT, "mode=default") == folder


@pytest.mark.skipif(os.geteuid() != 0, reason="giving a folder to another user needs root")
def test_a_level_of_another_user_is_refused(root: Path) -> None:
    compile_cache(PRINT, "mode=default")
    os.chown(root / PRINT, NOBODY, NOBODY)

    assert f"{root / PRINT} belongs to user {NOBODY}" in _refusal()


@pytest.mark.parametrize("name", ["my cache", "it's", 'a"b', "a\\b", "a\nb"])
def test_a_name_that_breaks_torchs_compiler_calls_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("AUTOTUNE_CACHE", str(tmp_path / name))

    assert "name another folder in AUTOTUNE_CACHE" in _refusal()
    assert list(tmp_path.iterdir()) == []


def test_a_cache_without_a_place_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOTUNE_CACHE", "~nobody-by-this-name/cache")

    assert "name a folder in AUTOTUNE_CACHE" in _refusal()


def test_a_file_in_the_way_is_refused(root: Path) -> None:
    root.mkdir(parents=True)
    (root / PRINT).write_text("")

    assert "cannot be used" in _refusal() or "not a folder" in _refusal()


def test_a_folder_that_cannot_be_made_is_refused(open_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOTUNE_CACHE", str(open_folder / "cache"))
    open_folder.chmod(0o555)
    with unprivileged():
        assert "cannot be used: Permission denied" in _refusal()


def test_wiping_removes_the_folder_with_all_it_holds_and_nothing_else(root: Path) -> None:
    folder, other = compile_cache(PRINT, "mode=default"), compile_cache(PRINT, "mode=max-autotune")
    (folder / "deep").mkdir()
    (folder / "deep" / "kernel.so").write_bytes(b"code")

    wipe(folder)
    wipe(folder)

    assert not folder.exists()
    assert other.is_dir()


def test_wiping_follows_no_link(root: Path, tmp_path: Path) -> None:
    folder = compile_cache(PRINT, "mode=default")
    precious = tmp_path / "precious"
    (precious / folder.name).mkdir(parents=True)
    (precious / folder.name / "file").touch()
    (folder / "link").symlink_to(precious)
    wipe(folder)
    assert (precious / folder.name / "file").exists()

    (root / PRINT).rmdir()
    (root / PRINT).symlink_to(precious)
    with pytest.raises(CacheRefused, match="is a link"):
        wipe(folder)
    assert (precious / folder.name / "file").exists()


def test_wiping_what_lies_elsewhere_is_refused(root: Path, tmp_path: Path) -> None:
    folder = compile_cache(PRINT, "mode=default")
    (tmp_path / "mine").mkdir()
    for path in (tmp_path / "mine", root, folder / ".." / ".." / ".." / ".." / "mine"):
        with pytest.raises(CacheRefused, match="is not removed"):
            wipe(path)
    assert (tmp_path / "mine").is_dir()
    assert folder.is_dir()


@pytest.fixture
def made(tmp_path: Path) -> Path:
    folder = tmp_path / "made"
    (folder / "packages").mkdir(parents=True)
    (folder / "packages" / "graph.so").write_bytes(b"code" * 500)
    (folder / "packages" / "graph.lock").touch()
    return folder


def test_what_is_stored_is_taken_as_it_was_and_what_passes_is_left(root: Path, made: Path) -> None:
    stored = store(made, PRINT, "key")
    assert stored is not None
    folder, summary = stored
    place = workplace(PRINT)

    assert link_verified(folder, place) == summary
    assert (summary.files, summary.bytes) == (1, 2000)
    assert [path.name for path in place.rglob("*") if path.is_file()] == ["graph.so"]
    assert (place / "packages" / "graph.so").read_bytes() == b"code" * 500


def test_storing_more_keeps_what_was_there(root: Path, made: Path) -> None:
    store(made, PRINT, "key")
    (made / "packages" / "graph.so").rename(made / "packages" / "other.so")
    stored = store(made, PRINT, "key")

    assert stored is not None
    assert stored[1].files == 2
    assert link_verified(stored[0], workplace(PRINT)) == stored[1]


def test_storing_that_ends_midway_leaves_a_list_of_what_is_there(root: Path, made: Path) -> None:
    first = store(made, PRINT, "key")
    assert first is not None
    folder, summary = first
    (made / "a replaced file").write_bytes(b"one")
    assert store(made, PRINT, "key") is not None
    (made / "a replaced file").write_bytes(b"another")
    (made / "z").write_bytes(b"comes last")
    (folder / "z" / "in the way").mkdir(parents=True)
    with pytest.raises(CacheRefused):
        store(made, PRINT, "key")
    assert (folder / "a replaced file").read_bytes() == b"another"
    assert link_verified(folder, workplace(PRINT)) == summary


def test_nothing_is_stored_where_nothing_was_made_and_nothing_taken_where_nothing_is(
    root: Path, tmp_path: Path
) -> None:
    assert store(tmp_path / "missing", PRINT, "key") is None
    assert link_verified(compile_cache(PRINT, "key"), workplace(PRINT)) is None


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _zero(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def _garble(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(bytes(content))


def _give_away(path: Path) -> None:
    os.chown(path, NOBODY, NOBODY)


def _link(path: Path) -> None:
    path.rename(path.with_suffix(".real"))
    path.symlink_to(path.with_suffix(".real"))


@pytest.mark.parametrize("name", ["packages/graph.so", "manifest.json"])
@pytest.mark.parametrize(
    "damage",
    [
        _truncate,
        _zero,
        _garble,
        pytest.param(_give_away, marks=pytest.mark.skipif(os.geteuid() != 0, reason="needs root")),
        _link,
        lambda path: path.chmod(0o722),
        lambda path: (path.unlink(), path.mkdir()),
    ],
)
def test_damage_of_every_kind_is_refused_and_what_is_made_anew_is_taken(
    root: Path, made: Path, name: str, damage: Callable[[Path], object]
) -> None:
    stored = store(made, PRINT, "key")
    assert stored is not None
    damage(stored[0] / name)
    with pytest.raises(Damaged) as caught:
        link_verified(stored[0], workplace(PRINT))
    assert str(stored[0] / name) in str(caught.value)
    assert "\n" not in str(caught.value)

    wipe(stored[0])
    assert store(made, PRINT, "key") == stored
    assert link_verified(stored[0], workplace(PRINT)) == stored[1]


@pytest.mark.parametrize("name", ["../../outside", "/etc/passwd", "a/../../../b"])
def test_a_list_that_names_files_elsewhere_is_refused(root: Path, made: Path, name: str) -> None:
    stored = store(made, PRINT, "key")
    assert stored is not None
    listed = {"format": 1, "files": {name: {"sha256": "0" * 64, "bytes": 1}}}
    (stored[0] / "manifest.json").write_text(json.dumps(listed))
    with pytest.raises(Damaged, match="is damaged"):
        link_verified(stored[0], workplace(PRINT))


@pytest.mark.parametrize("name", ["a/" * 3000, "b" * 300])
def test_a_list_that_names_what_no_folder_can_hold_is_refused(root: Path, made: Path, name: str) -> None:
    stored = store(made, PRINT, "key")
    assert stored is not None
    listed = {"format": 1, "files": {name: {"sha256": "0" * 64, "bytes": 1}}}
    (stored[0] / "manifest.json").write_text(json.dumps(listed))
    with pytest.raises(Damaged, match="cannot be read: File name too long"):
        link_verified(stored[0], workplace(PRINT))


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system for few files."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "nr_inodes=40,mode=0700", "none", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("nothing may be mounted here")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk_says_nothing_against_what_is_stored(
    small: Path, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTOTUNE_CACHE", str(small / "cache"))
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    environment, settings = current_environment(), RuntimeSettings(compile_mode="default")
    stored = store(made, environment.fingerprint, settings.key)
    assert stored is not None
    compile_cache(environment.fingerprint, "")
    for number in range(os.statvfs(small).f_ffree):
        (small / str(number)).touch()
    (small / "0").unlink()  # room for the folder of the load, for nothing in it

    with pytest.warns(RuntimeWarning, match=r"cannot be filled: No space left .*; compiling into "):
        taken = LoadArtifacts.of_settings(environment, settings)
    assert not taken.found
    (small / "1").unlink()
    shutil.rmtree(next((small / "cache").glob("*/run-*")))
    for number in range(2, 6):
        (small / str(number)).unlink()
    assert link_verified(stored[0], workplace(environment.fingerprint)) == stored[1]


@given(st.binary(max_size=200))
def test_any_bytes_in_place_of_the_list_are_damage_and_never_another_error(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "manifest.json").write_bytes(content)
        with pytest.raises(Damaged):
            link_verified(Path(folder), Path(folder) / "into")


def _gone() -> int:
    """The id of a process that has ended."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


def test_workplaces_of_processes_that_are_gone_are_swept(root: Path) -> None:
    here, started = platform.node(), round(Owner.current().started)
    names = {
        "gone": f"run-{_gone()}-{started}-{here}-abc",
        "gone, named by a version that knew the id alone": f"run-{_gone()}-abc",
        "gone, its id used again": f"run-{os.getpid()}-{started - 60}-{here}-abc",
        "nobody": "run-abc",
        "no process could have this id": f"run-{2**70}-abc",
        "alive": f"run-{os.getpid()}-{started}-{here}-abc",
        "alive, named by a version that knew the id alone": f"run-{os.getpid()}-abc",
    }
    above = compile_cache(PRINT, "").parent
    for name in names.values():
        (above / name).mkdir()
    mine = workplace(PRINT)

    assert workplace(PRINT) != mine
    assert mine.is_dir()
    left = [whose for whose, name in names.items() if (above / name).exists()]
    assert left == ["alive", "alive, named by a version that knew the id alone"]


@pytest.mark.parametrize("host", ["elsewhere", "an odd/host's name-1"])
def test_workplaces_of_another_container_go_when_it_was_killed(root: Path, host: str) -> None:
    made_there = (
        "import os, platform, sys; from autotuner.serving.artifacts import workplace;"
        "platform.node = lambda: sys.argv[1];"
        "print(workplace(sys.argv[2]), flush=True); sys.stdin.read(); os.kill(os.getpid(), 9)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", made_there, host, PRINT], stdin=PIPE, stdout=PIPE, text=True
    ) as container:
        assert container.stdout is not None
        place = Path(container.stdout.readline().strip())
        assert place.parent == compile_cache(PRINT, "").parent
        workplace(PRINT)
        assert place.is_dir()  # it lives
    workplace(PRINT)
    assert not place.exists()


def test_workplaces_that_an_earlier_version_made_on_another_host_stay(root: Path) -> None:
    place = compile_cache(PRINT, "").parent / "run-1-2-elsewhere-abc"
    place.mkdir()
    workplace(PRINT)
    assert place.is_dir()
