"""What `autotune db prune` removes of the compile cache, and what it leaves."""

from __future__ import annotations

import os
import shutil
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from autotuner.commands.prune import Pruned, prune
from autotuner.environment import current_environment
from autotuner.serving.artifacts import settings_folder
from autotuner.serving.cache_folders import cache_folders, mark_used
from autotuner.store import Store
from tests.support.invoking import document, run
from tests.support.promoted_store import BF16, FAST, STEADY, promotion
from tests.support.storage_samples import empty_store
from toto_core.private_folders import make_private
from toto_core.settings import RuntimeSettings

NOW = datetime.now(UTC)
HERE = current_environment().fingerprint
GONE = "0123456789abcdef"
OLD, NEW = 40.0, 2.0


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "cache"
    root.mkdir(mode=0o700)
    monkeypatch.setenv("AUTOTUNE_CACHE", str(root))
    return root


@pytest.fixture
def store(tmp_path: Path) -> Path:
    path = tmp_path / "store.db"
    path.write_bytes(empty_store())
    return path


def filled(folder: Path, *, days: float, size: int = 1000) -> Path:
    """A private folder with one file, last used ``days`` ago."""
    folder.mkdir(mode=0o700, parents=True)
    library = folder / "library.so"
    library.write_bytes(b"x" * size)
    used = (NOW - timedelta(days=days)).timestamp()
    os.utime(library, (used, used))
    os.utime(folder, (used, used))
    return folder


def pruned(
    store: Path, *, days: float = 30.0, most_bytes: int | None = None, dry_run: bool = False
) -> Pruned:
    with Store(str(store)) as opened:
        return prune(opened, now=NOW, days=days, most_bytes=most_bytes, dry_run=dry_run)


def artifacts(cache: Path, settings: RuntimeSettings, environment: str = HERE) -> Path:
    return settings_folder(cache, environment, settings.key)


def test_what_nobody_used_for_long_goes_whatever_it_is(cache: Path, store: Path) -> None:
    old = [
        filled(artifacts(cache, BF16), days=OLD),
        filled(artifacts(cache, BF16, GONE), days=OLD),
        filled(cache / f"trials-{GONE}-0011-ffff", days=OLD),
        filled(cache / "headers" / ("ab" * 12), days=OLD),
    ]
    new = [
        filled(artifacts(cache, STEADY), days=NEW),
        filled(cache / f"trials-{HERE}-0011-ffff", days=NEW),
        filled(cache / "headers" / ("cd" * 12), days=NEW),
    ]
    stranger = filled(cache / "something else", days=OLD)

    planned = pruned(store, dry_run=True)
    assert {folder.path for folder in planned.removed} == {*old}
    assert all(folder.exists() for folder in old)

    done = pruned(store)
    assert (done.removed, done.failed) == (planned.removed, ())
    assert not any(folder.exists() for folder in old)
    assert {folder.path for folder in done.left} == {*new}
    assert all(folder.exists() for folder in (*new, stranger))
    assert pruned(store).removed == ()


def test_what_is_promoted_pinned_or_came_before_stays(cache: Path, store: Path) -> None:
    with Store(str(store)) as opened:
        for minutes, settings in enumerate((BF16, STEADY, FAST)):
            opened.promote(promotion(chosen=settings, minutes=minutes))
        opened.pin("MSFT", RuntimeSettings(compile_mode="max-autotune"), "because")
    first, before, active = (filled(artifacts(cache, each), days=OLD) for each in (BF16, STEADY, FAST))
    pin = filled(artifacts(cache, RuntimeSettings(compile_mode="max-autotune")), days=OLD)
    elsewhere = filled(artifacts(cache, FAST, GONE), days=OLD)

    done = pruned(store, most_bytes=1)

    assert {folder.path for folder in done.removed} == {first, elsewhere}
    assert all(folder.exists() for folder in (before, active, pin))


def test_the_predecessor_of_a_confirmed_canary_stays(cache: Path, store: Path) -> None:
    with Store(str(store)) as opened:
        for minutes, settings in enumerate(
            (STEADY, FAST, FAST)
        ):  # the canary's promotion, and its confirmation
            opened.promote(promotion(chosen=settings, minutes=minutes))
    before = filled(artifacts(cache, STEADY), days=OLD)

    assert pruned(store).removed == ()
    assert before.exists()


def test_what_a_rollback_took_out_of_use_protects_nothing(cache: Path, store: Path) -> None:
    with Store(str(store)) as opened:
        opened.promote(promotion(chosen=FAST))
        opened.records.roll_back("AMD", "slow", NOW)
    folder = filled(artifacts(cache, FAST), days=OLD)

    assert {each.path for each in pruned(store).removed} == {folder}


def test_above_the_size_what_was_used_longest_ago_goes_but_nothing_of_today(cache: Path, store: Path) -> None:
    oldest, older = (filled(cache / f"trials-{HERE}-{days}-ffff", days=days) for days in (9, 5))
    today = filled(cache / f"trials-{HERE}-0-ffff", days=0.5)
    loaded = filled(artifacts(cache, BF16), days=20)  # another store may have promoted it

    assert {folder.path for folder in pruned(store, most_bytes=3000, dry_run=True).removed} == {oldest}
    assert {folder.path for folder in pruned(store, most_bytes=1).removed} == {oldest, older}
    assert today.exists()
    assert loaded.exists()


def test_a_folder_in_use_counts_as_new(cache: Path, store: Path) -> None:
    folder = filled(cache / f"trials-{HERE}-0011-ffff", days=OLD)
    mark_used(folder)
    assert pruned(store).removed == ()
    mark_used(cache / "not there")  # nothing happens


def test_a_link_is_not_followed_and_a_killed_prune_is_finished(
    cache: Path, store: Path, tmp_path: Path
) -> None:
    outside = filled(tmp_path / "outside", days=OLD)
    (cache / f"trials-{HERE}-0011-ffff").symlink_to(outside)
    left = filled(cache / f".removed-trials-{GONE}-0011-ffff", days=OLD)
    assert pruned(store).removed == ()
    assert not left.exists()
    assert (outside / "library.so").exists()


def test_no_cache_is_nothing_to_do(cache: Path, store: Path) -> None:
    cache.rmdir()
    assert cache_folders(cache) == ()
    assert pruned(store) == Pruned(removed=(), left=())


def test_the_command_says_what_goes_and_what_stays(cache: Path, store: Path) -> None:
    folder = filled(cache / f"trials-{GONE}-0011-ffff", days=4000.0, size=3_000_000)

    planned = run(store, "db", "prune", "--dry-run")
    assert f"would be removed: {folder} (trials, 3 MB)" in planned.stdout
    assert "1 folders, 3 MB would be removed; 0 MB stay" in planned.stdout

    done = document(store, "db", "prune")
    assert done["removed"] == [{"path": str(folder), "kind": "trials", "bytes": 3_000_000}]
    assert (done["removed_bytes"], done["left_bytes"], done["failed"]) == (3_000_000, 0, [])
    assert not folder.exists()


def test_what_cannot_be_removed_is_said_and_the_exit_code_is_one(
    cache: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = filled(cache / f"trials-{GONE}-0011-ffff", days=4000.0)
    folder.chmod(0o777)  # another user may have put a link into it

    done = run(store, "db", "prune")

    assert done.exit_code == 1
    assert "0 folders" in done.stdout
    assert "writable by others" in done.stderr
    assert folder.exists()
    assert run(store, "db", "prune").exit_code == 1  # said as long as it is so


def test_a_folder_that_vanishes_meanwhile_is_left_out(
    cache: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = filled(cache / f"trials-{GONE}-0011-ffff", days=OLD)
    found = cache_folders(cache)
    monkeypatch.setattr("autotuner.commands.prune.cache_folders", lambda _: found)
    shutil.rmtree(folder)
    (failed,) = pruned(store).failed
    assert "No such file" in failed


def test_folders_of_trials_are_private_whatever_the_umask(cache: Path) -> None:
    before = os.umask(0o002)
    try:
        make_private(cache / "trials" / "one" / "two")
    finally:
        os.umask(before)
    for level in ("trials", "trials/one", "trials/one/two"):
        assert stat.S_IMODE((cache / level).stat().st_mode) == 0o700
