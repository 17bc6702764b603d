"""A shell that was given ``autotune completion`` completes commands, options and the symbols of the store."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from autotuner.cli.completion import SHELLS
from tests.support.command import Cli

pytestmark = pytest.mark.usefixtures("no_variables")

PRESS_TAB = """
eval "$(autotune completion bash)"
COMP_WORDS=("$@")
COMP_CWORD=$(($# - 1))
_autotune_completion autotune
printf '%s\\n' "${COMPREPLY[@]}"
"""
ASK = "from autotuner.cli import main; main()"


def offered_by_bash(*words: str, place: Path, folder: Path) -> list[str]:
    """What bash offers when tab is pressed at the end of ``words``."""
    autotune = folder / "autotune"  # bash runs what the line begins with
    autotune.write_text(f"#!/bin/sh\nexec {sys.executable} -c '{ASK}' \"$@\"\n")
    autotune.chmod(0o700)
    variables = {"AUTOTUNE_DB": str(place), "PATH": f"{folder}:{os.environ['PATH']}"}
    command = ["bash", "--norc", "-c", PRESS_TAB, "bash", *words]
    ended = subprocess.run(command, env=os.environ | variables, capture_output=True, text=True, check=True)
    assert ended.stderr == ""
    return ended.stdout.split()


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (("autotune", "sho"), ["show"]),
        (("autotune", "show", "a"), ["AMD"]),
        (("autotune", "show", "--symbol", "A"), ["AMD"]),
        (("autotune", "run", "--symbol", "AM"), ["AMD"]),
        (("autotune", "show", "ZZZ"), []),
        (("autotune", "forecast", "--eag"), ["--eager"]),
        (("autotune", "completion", "f"), ["fish"]),
    ],
)
def test_bash_offers(words: tuple[str, ...], offered: list[str], place: Path, tmp_path: Path) -> None:
    assert offered_by_bash(*words, place=place, folder=tmp_path) == offered


def test_symbols_are_of_the_store_that_is_named_on_the_line(place: Path, tmp_path: Path) -> None:
    nothing = tmp_path / "nothing.db"
    words = ("autotune", "show", "--db", str(place), "A")

    assert offered_by_bash(*words, place=nothing, folder=tmp_path) == ["AMD"]


@pytest.mark.parametrize("damage", [None, b"", b"SQLite format 3\0" + b"x" * 5000])
def test_a_store_that_cannot_be_read_offers_no_symbols_and_prints_nothing(
    damage: bytes | None, tmp_path: Path
) -> None:
    if damage is not None:
        (tmp_path / "hurt.snapshot.db").write_bytes(damage)

    words = ("autotune", "show", "A")
    assert offered_by_bash(*words, place=tmp_path / "hurt.db", folder=tmp_path) == []


@pytest.mark.parametrize("shell", SHELLS)
def test_the_lines_for_each_shell_ask_autotune(shell: str, tmp_path: Path) -> None:
    ended = Cli(tmp_path).run("completion", shell)

    assert ended.returncode == 0
    assert f"_AUTOTUNE_COMPLETE={shell}_complete" in ended.stdout
