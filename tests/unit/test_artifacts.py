from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from autotuner.serving.artifacts import CacheRefused, adopt, compile_cache, wipe
from tests.storage_samples import NOBODY, shared_folder, unprivileged

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


def test_what_a_trial_compiled_is_handed_over_once_and_never_over_something_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTOTUNE_CACHE", str(tmp_path / "cache"))
    compiled = tmp_path / "trial"
    (compiled / "ab").mkdir(parents=True)
    (compiled / "ab" / "kernel.so").write_bytes(b"code")
    fingerprint = "0123456789abcdef"
    assert adopt(compiled, fingerprint, "key") is True
    folder = compile_cache(fingerprint, "key")
    assert (folder / "ab" / "kernel.so").read_bytes() == b"code"
    assert folder.stat().st_mode & 0o777 == 0o700
    (compiled / "ab" / "kernel.so").write_bytes(b"other")
    assert adopt(compiled, fingerprint, "key") is False
    assert (folder / "ab" / "kernel.so").read_bytes() == b"code"
    assert [p.name for p in folder.parent.iterdir()] == [folder.name]


def test_nothing_is_handed_over_where_nothing_was_compiled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTOTUNE_CACHE", str(tmp_path / "cache"))
    assert adopt(tmp_path / "missing", "0123456789abcdef", "key") is False
