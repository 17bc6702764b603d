"""Lets tests compile sooner in their own process, not fail for being slow, and begin with the slowest files."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.support.postgres import Server, or_skipped
from toto_core.compiling.headers import HEADERS_VARIABLE

# How long an example takes tells what else the machine does; tests that promise a time measure it themselves.
settings.register_profile("whatever_the_machine_does", parent=settings.default, deadline=None)
settings.load_profile("whatever_the_machine_does")

os.environ.setdefault("AOT_INDUCTOR_COMPILE_WRAPPER_OPT_LEVEL", "O0")
os.environ.setdefault(
    "TORCHINDUCTOR_VEC_ISA_OK", "1"
)  # else torch compiles six probes into every empty cache


def pytest_configure(config: pytest.Config) -> None:
    """Let every test, its child processes and later runs parse torch's C++ headers once."""
    cache = getattr(config, "cache", None)  # there is none with -p no:cacheprovider
    if cache is not None:
        os.environ.setdefault(HEADERS_VARIABLE, str(cache.mkdir("headers")))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with the most slow tests first: begun last, one of them would leave the other core idle for minutes."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """One PostgreSQL server for all tests of this process, each with a database of its own."""
    with or_skipped() as found:
        yield found


@pytest.fixture
def noexec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A private folder on a file system that is mounted noexec, or that says so where nothing may be mounted."""
    folder = tmp_path / "noexec"
    folder.mkdir(mode=0o700)
    real = os.statvfs

    def says_noexec(path: object) -> object:
        found = real(path)  # type: ignore[arg-type] # whatever it is given
        if not Path(str(path)).is_relative_to(folder):
            return found
        return os.statvfs_result([*found[:8], found.f_flag | os.ST_NOEXEC, found.f_namemax])

    monkeypatch.setattr(os, "statvfs", says_noexec)
    return folder
