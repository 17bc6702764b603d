"""README is a page of three minutes; ``test_doc_blocks`` runs what is in it."""

from __future__ import annotations

import re
from pathlib import Path

from tests.support.command import Cli
from tests.support.doc_pages import blocks

README = Path(__file__).parents[2] / "README.md"
WORDS = 800
"""Of 250 a minute; tables and output are skimmed."""


def test_the_trading_script_runs_as_printed(autotune: Cli) -> None:
    (script,) = (block.text for block in blocks(README) if block.language == "python")
    lines = [line for line in script.splitlines() if line.strip()]
    assert len(lines) <= 10
    printed = autotune.python(script).strip().splitlines()
    assert len(eval(printed[0])) == 8
    assert "'num_samples_used': 256" in printed[-1]
    assert "torch_compile_success" in printed[-1]


def test_it_is_read_in_three_minutes() -> None:
    assert len(README.read_text(encoding="utf-8").split()) <= WORDS


def test_everything_that_it_links_to_is_there_and_the_picture_is_modest() -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", README.read_text(encoding="utf-8"))
    assert len(targets) > 10
    assert [target for target in targets if not (README.parent / target).exists()] == []
    (picture,) = (README.parent / target for target in targets if target.endswith(".png"))
    assert picture.stat().st_size < 250_000
