"""Every command and every code block of README and docs is run; see ``doc_pages`` and ``doc_runner`` for how."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.doc_commands import wrong_with
from tests.support.doc_pages import (
    LANGUAGES,
    ROOT,
    RUN,
    Block,
    blocks,
    commands,
    escapes,
    inline_commands,
    pages,
)
from tests.support.doc_python import PythonBlocks
from tests.support.doc_runner import PageRunner

PAGES = pages()
MOST_NOT_RUN = 21
"""Blocks that cannot be run here: a new one wants a reason, and this number raised by hand."""
REASONS = (
    "changes your shell",
    "needs Docker",
    "needs a network",
    "needs a PostgreSQL server",
    "needs an NVIDIA GPU",
    "needs an environment of its own",
    "needs systemd",
    "needs two machines",
    "takes minutes",
)


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def with_blocks() -> list[Path]:
    return [page for page in PAGES if any(block.not_run is None for block in blocks(page))]


@pytest.fixture(scope="module")
def python() -> Iterator[PythonBlocks]:
    with PythonBlocks() as running:
        yield running


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory, python: PythonBlocks) -> Path:
    """A folder with a store in which AMD is tuned, and with the prices of the samples in files."""
    folder = tmp_path_factory.mktemp("tuned")
    page = PageRunner(page="before all pages", folder=folder, python=python)
    text = "$ autotune run --symbol AMD\n"
    page.run(Block(page=Path(__file__), line=1, language="console", text=text))
    samples = ROOT / "toto_core" / "assets"
    (folder / "prices").mkdir()
    for file in samples.rglob("*.csv*"):
        shutil.copy(file, folder / "prices" / file.name)
    shutil.copy(ROOT / "tests" / "data" / "prices" / "german_semicolon.csv", folder)
    return folder


@pytest.mark.parametrize("page", with_blocks(), ids=name_of)
def test_what_a_page_tells_to_run_runs(page: Path, tuned: Path, tmp_path: Path, python: PythonBlocks) -> None:
    folder = tmp_path / "page"
    shutil.copytree(tuned, folder)
    runner = PageRunner(page=name_of(page), folder=folder, python=python)
    runner.prepare()
    for block in blocks(page):
        if block.not_run is None:
            runner.run(block)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_no_code_escapes_its_fence(page: Path) -> None:
    assert escapes(page) == []
    for block in blocks(page):
        assert block.language in LANGUAGES, block.where
        if block.language == "text":
            assert not re.search(r"^(\$ |autotune )", block.text, flags=re.MULTILINE), (
                f"{block.where}: is a command"
            )


def test_what_is_not_run_has_a_reason_and_could_be_run_elsewhere() -> None:
    left_out = [block for page in PAGES for block in blocks(page) if block.not_run is not None]
    listed = "".join(f"\n{block.where}: {block.not_run}" for block in left_out)
    assert len(left_out) <= MOST_NOT_RUN, listed
    for block in left_out:
        assert block.language in RUN, f"{block.where}: nothing would be run"
        assert str(block.not_run).startswith(REASONS), f"{block.where}: {block.not_run}"
        lines = (
            [each.text for each in commands(block)]
            if block.language == "console"
            else block.text.splitlines()
        )
        for line in lines:
            assert wrong_with(line) is None, block.where
            for target in re.findall(r"^make (\w[\w-]*)", line.strip()):
                assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), flags=re.MULTILINE), line


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_named_in_a_sentence_exist(page: Path) -> None:
    assert [wrong for line in inline_commands(page) if (wrong := wrong_with(line))] == []
