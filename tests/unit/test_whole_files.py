from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from storage.whole_files import written_whole
from tests.support.storage_samples import ROOT


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


FILLING = """
import sys, time
from pathlib import Path
from storage.whole_files import written_whole
from tests.support.storage_samples import ROOT
with written_whole(Path(sys.argv[1])) as aside:
    aside.write_text("half")
    aside.with_name(f"{aside.name}-journal").write_text("")
    print("filling", flush=True)
    time.sleep(60)
"""


def test_what_a_killed_writer_left_goes_with_the_next_writer_into_the_folder(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", FILLING, str(tmp_path / "a.db")], stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as writer:
        try:
            assert writer.stdout is not None
            assert writer.stdout.readline() == "filling\n"
            with written_whole(tmp_path / "b"):
                pass
            assert len(list(tmp_path.glob(".a.db.*"))) == 2  # its writer lives
        finally:
            writer.kill()
    with written_whole(tmp_path / "b"):
        pass
    assert [entry.name for entry in tmp_path.iterdir()] == ["b"]


def test_files_of_an_earlier_version_which_locked_none_go_by_their_age(tmp_path: Path) -> None:
    old, fresh, other = (tmp_path / name for name in (f".a.{'1' * 16}.new", f".a.{'2' * 16}.new", ".a.new"))
    for left in (old, fresh, other):
        left.touch()
    for left in (old, other):
        os.utime(left, (0, 0))
    with written_whole(tmp_path / "b"):
        pass

    assert {entry.name for entry in tmp_path.iterdir()} == {"b", fresh.name, other.name}


def test_no_link_and_no_pipe_is_followed(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.touch()
    link, pipe = (tmp_path / f".a.{digit * 16}.held" for digit in "12")
    link.symlink_to(kept)
    os.mkfifo(pipe)
    with written_whole(tmp_path / "b"):
        pass

    assert kept.exists()
    assert link.is_symlink()
    assert pipe.exists()
