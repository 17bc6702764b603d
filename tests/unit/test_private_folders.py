"""Nothing is unpickled, loaded or compiled in from a folder that another user could write to."""

from __future__ import annotations

import os
import shlex
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from autotuner.serving.artifacts import CacheRefused, refuse_foreign
from toto_core import compile_config
from toto_core.compiling import torch_cache
from toto_core.compiling.headers import with_header
from toto_core.compiling.torch_cache import keep_torch_private
from toto_core.private_folders import TORCH_CACHE_VARIABLE, why_not_private

NOBODY = 65_534
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to another user")


def _open(folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o777)


def _of_a_group(folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o775)


def _foreign(folder: Path) -> None:
    folder.mkdir(mode=0o700)
    os.chown(folder, NOBODY, NOBODY)


def _link(folder: Path) -> None:
    elsewhere = folder.with_name("elsewhere")
    elsewhere.mkdir()
    folder.symlink_to(elsewhere)


UNSAFE = [
    pytest.param(_open, "is writable by others", id="open to all"),
    pytest.param(_of_a_group, "is writable by others", id="open to a group"),
    pytest.param(_foreign, f"belongs to user {NOBODY}", id="another user's", marks=AS_ROOT),
    pytest.param(_link, "is a link", id="a link"),
]


@pytest.mark.parametrize(("make", "fault"), UNSAFE)
def test_torch_unpickles_nothing_from_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], None], fault: str
) -> None:
    for named in (True, False):
        temporary = tmp_path / str(named)
        temporary.mkdir()
        monkeypatch.setattr("tempfile.tempdir", str(temporary))
        monkeypatch.setenv("LOGNAME", "al:ice")
        folder = temporary / "torchinductor_al_ice"
        monkeypatch.setenv(TORCH_CACHE_VARIABLE, str(folder))
        if not named:
            monkeypatch.delenv(TORCH_CACHE_VARIABLE)
        make(folder)
        with pytest.warns(RuntimeWarning, match=fault):
            keep_torch_private()
        chosen = Path(os.environ[TORCH_CACHE_VARIABLE])
        assert chosen != folder
        assert why_not_private(chosen) == ""


@pytest.mark.exhaustive
def test_the_folder_without_a_variable_is_the_one_that_torch_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._inductor.runtime.cache_dir_utils import default_cache_dir  # takes seconds

    for user in ("alice", 'a\\l/i:c*e?"<>|.'):
        monkeypatch.setenv("LOGNAME", user)
        assert str(torch_cache._torch_default()) == default_cache_dir()


def test_a_folder_of_ones_own_stays_and_a_missing_one_is_made_private(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TORCH_CACHE_VARIABLE, str(tmp_path / "inductor"))
    before = os.umask(0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            keep_torch_private()
            keep_torch_private()
    finally:
        os.umask(before)
    assert (tmp_path / "inductor").stat().st_mode & 0o777 == 0o700
    assert os.environ[TORCH_CACHE_VARIABLE] == str(tmp_path / "inductor")


@pytest.mark.parametrize(("make", "fault"), UNSAFE)
def test_a_run_neither_builds_in_it_nor_loads_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], None], fault: str
) -> None:
    root = tmp_path / "cache"
    monkeypatch.setenv("AUTOTUNE_CACHE", str(root))
    refuse_foreign(root / "trials-x")
    for place in (root / "trials-y", root / "trials-z" / "0123"):
        place.parent.mkdir(exist_ok=True, mode=0o700)
        make(place)
        with pytest.raises(CacheRefused, match=fault) as refusal:
            refuse_foreign(place)
        assert len(str(refusal.value).splitlines()) == 1
        if (tmp_path / "elsewhere").exists():
            (tmp_path / "elsewhere").rmdir()
    make(tmp_path / "other")
    monkeypatch.setenv("AUTOTUNE_CACHE", str(tmp_path / "other"))
    with pytest.raises(CacheRefused, match=fault):
        refuse_foreign(tmp_path / "other" / "trials-x")


@AS_ROOT
def test_what_another_user_left_in_it_is_not_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOTUNE_CACHE", str(tmp_path))
    library = tmp_path / "trials-x" / "0123" / "packages" / "a.so"
    refuse_foreign(library.parent)
    library.write_bytes(b"code")
    refuse_foreign(tmp_path / "trials-x")
    os.chown(library, NOBODY, NOBODY)
    with pytest.raises(CacheRefused, match=rf"a\.so belongs to user {NOBODY}"):
        refuse_foreign(tmp_path / "trials-x")


@pytest.mark.parametrize(("make", "fault"), UNSAFE)
def test_no_header_is_taken_from_there(tmp_path: Path, make: Callable[[Path], None], fault: str) -> None:
    source = tmp_path / "x.cpp"
    source.write_text("#include <torch/csrc/inductor/cpp_prefix.h>\n")
    command = shlex.join(["g++", str(source), "-o", str(tmp_path / "x.o")])
    make(tmp_path / "headers")
    assert with_header(command, tmp_path / "headers") == command


@pytest.mark.parametrize(("make", "fault"), UNSAFE)
def test_earlier_code_is_not_pointed_there(tmp_path: Path, make: Callable[[Path], None], fault: str) -> None:
    make(tmp_path / "cache")
    variables = {"AUTOTUNE_CACHE": str(tmp_path / "cache")}
    compile_config.apply(environ=variables)
    assert TORCH_CACHE_VARIABLE not in variables
    variables = {"AUTOTUNE_CACHE": str(tmp_path / "new")}
    compile_config.apply(environ=variables)
    assert variables[TORCH_CACHE_VARIABLE] == str(tmp_path / "new" / "inductor")
