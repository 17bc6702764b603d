"""The site builds, is complete, and needs nothing from elsewhere; every command has an example and a section."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

from tests.support.doc_commands import every_command
from tests.support.doc_pages import ROOT

DOCS = ROOT / "docs"
SECTIONS = DOCS / "reference" / "commands.md"
FEWEST_WORDS = 5
LARGEST_PICTURE = 150_000


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as strictly as `make docs` builds it."""
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder


def test_the_site_has_every_page_and_what_is_generated(site: Path) -> None:
    for page in DOCS.rglob("*.md"):
        built = page.relative_to(DOCS).with_suffix(".html")
        assert (site / built).is_file() or (site / built.parent / "index.html").is_file(), built
    cli, python = (
        (site / "reference" / f"{name}.html").read_text(encoding="utf-8") for name in ("cli", "python")
    )
    for path, _ in every_command():
        assert f'id="autotune-{path.replace(" ", "-")}"' in cli, path
    assert "<pre><code>autotune compare AMD BTCUSD</code></pre>" in cli
    assert all(name in python for name in ("load_pipeline", "AutotunedPredictor", "RuntimeSettings"))


def test_pages_load_nothing_from_elsewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        loaded = re.findall(r"<(?:script|img|iframe|link)\b[^>]*?(?:src|href)=\"?(https?:[^\s\">]+)", text)
        assert loaded == [], page


def test_links_to_files_of_the_repository_lead_somewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        for target in re.findall(r'href="?([^"#> ]+)', page.read_text(encoding="utf-8")):
            if not re.match(r"[a-z]+:", target) and page.name != "404.html":
                assert (page.parent / target).exists(), f"{page.relative_to(site)}: {target}"


def test_pictures_are_modest_and_shown() -> None:
    shown = "".join(page.read_text(encoding="utf-8") for page in DOCS.rglob("*.md"))
    pictures = sorted((DOCS / "pictures").glob("*.png"))
    assert len(pictures) >= 9
    for picture in pictures:
        assert picture.stat().st_size < LARGEST_PICTURE
        assert f"pictures/{picture.name})" in shown, f"no page shows {picture.name}"


def missing_examples() -> list[str]:
    """Commands whose help shows no line with which they are called."""
    missing = []
    for path, command in every_command():
        shown = command.get_help(click.Context(command, info_name=f"autotune {path}"))
        if not re.search(rf"^ +.*\bautotune {path}\b", shown.partition("\n")[2], flags=re.MULTILINE):
            missing.append(path)
    return missing


def missing_sections(text: str) -> list[str]:
    """Commands without a section of their own that says something and, unless they are a group, has an example."""
    sections = dict(
        re.findall(r"^#+ `autotune ([^`]+)`\n(.*?)(?=^#|\Z)", text, flags=re.DOTALL | re.MULTILINE)
    )
    missing = []
    for path, command in every_command():
        body = sections.get(path, "")
        prose = body.partition("```")[0].split()
        example = isinstance(command, click.Group) or f"$ autotune {path}" in body
        if len(prose) < FEWEST_WORDS or not example:
            missing.append(path)
    return missing


def test_every_command_has_an_example_in_its_help() -> None:
    assert missing_examples() == []


def test_every_command_has_a_section_with_an_example() -> None:
    assert missing_sections(SECTIONS.read_text(encoding="utf-8")) == []


def test_a_command_without_a_section_is_noticed() -> None:
    text = SECTIONS.read_text(encoding="utf-8")
    assert missing_sections(text.replace("## `autotune pin`", "## `autotune pinned`")) == ["pin"]
    assert missing_sections(text.replace("$ autotune cron remove", "$ true")) == ["cron remove"]


def test_no_section_is_about_a_command_that_is_gone() -> None:
    named = set(
        re.findall(r"^#+ `autotune ([^`]+)`", SECTIONS.read_text(encoding="utf-8"), flags=re.MULTILINE)
    )
    assert named - {path for path, _ in every_command()} == set()
