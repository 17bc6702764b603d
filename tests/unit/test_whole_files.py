from __future__ import annotations

import os
from pathlib import Path

import pytest

from storage.whole_files import written_whole


def test_a_file_gets_its_name_when_it_is_whole_and_is_its_owners_alone(tmp_path: Path) -> None:
    target = tmp_path / "made" / "note.json"
    with written_whole(target) as aside:
        aside.write_text("whole")
        assert not target.exists()

    assert target.read_text() == "whole"
    assert target.stat().st_mode & 0o777 == 0o600
    assert target.parent.stat().st_mode & 0o777 == 0o700
    assert list(target.parent.iterdir()) == [target]


def fail_halfway(target: Path, *, synced: bool) -> None:
    with written_whole(target, synced=synced) as aside:
        aside.write_text("half")
        raise OSError("full")


@pytest.mark.parametrize("synced", [True, False])
def test_what_fails_leaves_the_earlier_file_and_nothing_else(tmp_path: Path, synced: bool) -> None:
    target = tmp_path / "note.json"
    target.write_text("earlier")
    with pytest.raises(OSError, match="full"):
        fail_halfway(target, synced=synced)

    assert target.read_text() == "earlier"
    assert list(tmp_path.iterdir()) == [target]


def test_only_old_leavings_of_the_same_file_are_removed(tmp_path: Path) -> None:
    old, fresh, other = (tmp_path / name for name in (".a[1].1.new", ".a[1].2.new", ".a1.1.new"))
    for left in (old, fresh, other):
        left.touch()
    for left in (old, other):
        os.utime(left, (0, 0))
    with written_whole(tmp_path / "a[1]"):
        pass

    assert {entry.name for entry in tmp_path.iterdir()} == {"a[1]", fresh.name, other.name}
