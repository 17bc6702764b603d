from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.storage_samples import ROOT
from toto_core import held_folders
from toto_core.held_folders import HeldFolder, held_folder, left_behind, remove_left_behind

HOLDING = """
import sys, time
from pathlib import Path
from toto_core.held_folders import HeldFolder
folder = HeldFolder("apart-", Path(sys.argv[1]))
(folder.path / "below").mkdir()
(folder.path / "below" / "half").touch()
print(folder.path, flush=True)
time.sleep(60)
"""


def test_a_folder_is_private_and_gone_after_its_block(tmp_path: Path) -> None:
    with held_folder("apart-", tmp_path) as folder:
        (folder / "file").touch()
        assert folder.stat().st_mode & 0o777 == 0o700
        assert left_behind(tmp_path) == []
        assert remove_left_behind(tmp_path) == 0
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_held_is_removed_and_nothing_that_a_living_one_holds(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDING, str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        try:
            assert process.stdout is not None
            folder = Path(process.stdout.readline().strip())
            assert remove_left_behind(tmp_path) == 0
            assert folder.is_dir()
        finally:
            process.kill()
    assert left_behind(tmp_path, "apart-") == [folder]
    assert remove_left_behind(tmp_path, "other-") == 0
    assert remove_left_behind(tmp_path, "apart-") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_process_id_plays_no_part(tmp_path: Path) -> None:
    """As in containers that share a folder: the process asked for lives, and so does another of its name."""
    held = HeldFolder("apart-", tmp_path)
    child = os.fork()
    if child == 0:
        held.remove()  # a copy does not remove what is its parent's
        os._exit(0)
    os.waitpid(child, 0)
    assert held.path.is_dir()
    assert left_behind(tmp_path) == []
    held.remove()
    assert not held.path.exists()


def test_links_files_and_folders_of_another_name_stay(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    (tmp_path / "apart-link.held").symlink_to(kept)
    (tmp_path / "apart-file.held").touch()
    (tmp_path / "apart-earlier").mkdir()
    assert remove_left_behind(tmp_path) == 0
    assert len(list(tmp_path.iterdir())) == 4


def test_another_users_folder_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "apart-theirs.held").mkdir()
    os.utime(tmp_path / "apart-theirs.held", (0, 0))
    monkeypatch.setattr(os, "geteuid", lambda: 12_345)
    assert remove_left_behind(tmp_path) == 0


def test_a_folder_of_another_machine_stays_for_a_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held_folders, "_machine", lambda: "far00000")
    with held_folder("apart-", tmp_path) as mine:
        theirs = tmp_path / "apart-elsewhere-1.held"
        theirs.mkdir()
        assert remove_left_behind(tmp_path) == 0
        os.utime(theirs, (0, 0))
        assert remove_left_behind(tmp_path) == 1
        assert mine.is_dir()


def test_of_many_that_make_and_clear_up_at_once_none_loses_its_folder(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from toto_core.held_folders import *\n"
        "above = Path(sys.argv[1])\n"
        "for _ in range(100):\n"
        "    with held_folder('x-', above) as folder:\n"
        "        remove_left_behind(above)\n"
        "        (folder / 'file').touch()\n"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, stderr=subprocess.PIPE)
        for _ in range(3)
    ]
    ended = [process.communicate(timeout=60)[1] for process in processes]
    assert ended == [b""] * 3
    assert list(tmp_path.iterdir()) == []


TOO_FEW = """
import os, resource, sys
from pathlib import Path
from toto_core.held_folders import HeldFolder
resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) - 1,) * 2)
try:
    HeldFolder("apart-", Path(sys.argv[1]))
except OSError as error:
    print(error.strerror)
"""


def test_without_a_descriptor_left_it_fails_once_and_leaves_no_folder(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", TOO_FEW, str(tmp_path)],
        check=False,
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=20,
    )
    assert done.stdout.strip() == "Too many open files"
    assert list(tmp_path.iterdir()) == []
