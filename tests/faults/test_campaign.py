"""The campaign of ``make faults``: it runs as a person runs it, and its short form holds."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.campaign.counting import Tally
from tests.faults.campaign.killing import Tell, marked, victim
from tests.support.storage_samples import ROOT

_ROW = re.compile(r"^\| (?P<fault>.+?) \| (?P<times>[\d,]+) \| (?P<held>[\d,]+) \| ", re.MULTILINE)


def _campaign(*arguments: str, timeout: float) -> dict[str, int]:
    """How often each fault was made, of a campaign that ended well."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.campaign", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return {row["fault"]: int(row["times"].replace(",", "")) for row in _ROW.finditer(done.stdout)}


def test_writers_killed_in_whatever_they_do_lose_nothing_and_leave_nothing() -> None:
    found = _campaign("--only", "kills_of_writers", timeout=240.0)
    assert sum(found.values()) == 60
    assert len(found) > 8


@pytest.mark.exhaustive
def test_the_short_campaign_holds(tmp_path: Path) -> None:
    found = _campaign("--keep", str(tmp_path / "table.md"), timeout=1200.0)
    assert min(found.values()) >= 1
    assert (tmp_path / "table.md").read_text().startswith("20")


def test_a_row_of_which_one_fault_broke_something_does_not_pass() -> None:
    tally = Tally("a fault")
    tally.add([])
    tally.add(["lost: one", "left behind: two"])
    row = tally.row()
    assert (row.times, row.held, row.passed) == (2, 1, False)
    assert "lost: one" in row.broken


def test_what_a_killed_child_was_at_and_what_it_had_done_is_known(tmp_path: Path) -> None:
    def work(tell: Tell) -> None:
        marked(tell, "quick", "first", lambda: None)
        marked(tell, "endless", "second", lambda: [None for _ in iter(int, 1)])

    with victim(work) as child:
        assert child.wait_for("endless", 1)
        life = child.kill()
    assert (life.done, life.at, life.word, life.raised) == ({"quick": ["first"]}, "endless", "second", [])
