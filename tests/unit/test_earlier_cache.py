from __future__ import annotations

import stat
from pathlib import Path

import pytest

from toto_core.earlier_cache import CacheUnavailableError, opened, packages_of
from toto_core.settings import RuntimeSettings

COMPILED = RuntimeSettings(compile_mode="default")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return packages_of("m" * 64, COMPILED, {"AUTOTUNE_CACHE": str(tmp_path / "cache")})


def test_every_model_and_every_settings_has_a_folder_of_its_own_and_none_is_made(place: Path) -> None:
    environ = {"AUTOTUNE_CACHE": str(place.parents[2])}
    others = packages_of("n" * 64, COMPILED, environ), packages_of("m" * 64, RuntimeSettings(), environ)
    assert len({place, *others}) == 3
    assert not place.parents[2].exists()


def test_what_is_loaded_as_code_lies_in_private_folders(place: Path) -> None:
    assert opened(place, policy="prefer", refresh=False) == place
    for folder in (place, place.parent, place.parents[1]):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    place.chmod(0o777)
    with pytest.raises(CacheUnavailableError, match="others could write what is loaded from here as code"):
        opened(place, policy="prefer", refresh=False)


def test_a_link_is_not_followed(place: Path, tmp_path: Path) -> None:
    place.parent.mkdir(parents=True, mode=0o700)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    place.symlink_to(elsewhere)
    with pytest.raises(CacheUnavailableError):
        opened(place, policy="prefer", refresh=False)


def test_only_wants_something_stored_and_a_refresh_takes_it_away(place: Path) -> None:
    opened(place, policy="prefer", refresh=False)
    (place / "package.so").write_bytes(b"code")
    assert opened(place, policy="only", refresh=False) == place
    assert opened(place, policy="never", refresh=True) is None
    assert opened(place, policy="prefer", refresh=True) == place
    assert list(place.iterdir()) == []
    with pytest.raises(CacheUnavailableError, match="none is stored for these settings"):
        opened(place, policy="only", refresh=False)


def test_a_file_in_the_way_is_one_line(place: Path) -> None:
    place.parents[2].mkdir()
    place.parents[1].write_text("in the way")
    with pytest.raises(CacheUnavailableError, match="cannot be used") as raised:
        opened(place, policy="prefer", refresh=False)
    assert "\n" not in str(raised.value)
