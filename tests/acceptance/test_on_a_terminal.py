"""What a person sees: commands on a terminal draw, in colour and in place, and end as they should."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.command import Cli

TABLE = Path(__file__).parents[1] / "data" / "seed" / "results.csv"
_COLOUR = re.compile(r"\x1b\[(3|4|9|10)\d")
_STYLE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def plain(drawn: str) -> str:
    return " ".join(_STYLE.sub("", drawn).split())


def test_a_run_on_a_terminal_draws_its_trials_as_a_table_and_says_the_best_so_far(autotune: Cli) -> None:
    code, drawn = autotune.on_a_terminal(
        "run", "--symbol", "AMD", "--replay", str(TABLE), "--db", str(autotune.db)
    )

    assert code == 0, drawn
    text = plain(drawn)
    assert "Traceback" not in text
    assert "\x1b[" in drawn
    assert "p50 speed-up drift, start or cause" in text
    assert "best so far: " in text
    assert "AMD now runs " in text


def test_a_run_that_is_refused_on_a_terminal_is_one_line(autotune: Cli) -> None:
    code, drawn = autotune.on_a_terminal("run", "--symbol", "AMD", "--model", str(autotune.folder / "gone"))

    assert code == 1
    assert "Traceback" not in drawn
    assert "no such model folder" in plain(drawn)


@pytest.mark.parametrize(
    "arguments",
    [("explain", "AMD")],
    ids=" ".join,
)
def test_a_command_draws_on_a_terminal(arguments: tuple[str, ...], promoted: Cli) -> None:
    code, drawn = promoted.on_a_terminal(*arguments)

    assert code == 0, drawn
    assert "Traceback" not in drawn
    assert plain(drawn)


def test_a_forecast_is_plotted_as_wide_as_the_terminal_and_without_colours_where_none_are_wanted(
    promoted: Cli,
) -> None:
    code, drawn = promoted.on_a_terminal(
        "forecast", "AMD", "--hindcast", "--eager", extra={"COLUMNS": "90", "NO_COLOR": "1"}
    )

    assert code == 0, drawn
    lines = [_STYLE.sub("", line).rstrip() for line in drawn.splitlines()]
    assert len(next(line for line in lines if "┌─" in line)) == 90
    assert all(word in "\n".join(lines) for word in ("prices", "forecast", "came"))
    assert not _COLOUR.search(drawn)


def test_tables_keep_to_the_width_of_the_terminal_and_to_no_color(promoted: Cli) -> None:
    for arguments in (("list",), ("show", "AMD")):
        code, drawn = promoted.on_a_terminal(*arguments, extra={"COLUMNS": "60", "NO_COLOR": "1"})
        assert code == 0, drawn
        assert all(len(_STYLE.sub("", line).rstrip()) <= 60 for line in drawn.splitlines())
        assert not _COLOUR.search(drawn)
        assert "AMD" in drawn


@pytest.fixture(scope="module")
def promoted(tmp_path_factory: pytest.TempPathFactory) -> Cli:
    autotune = Cli(tmp_path_factory.mktemp("terminal"))
    done = autotune.run("run", "--symbol", "AMD", "--replay", str(TABLE), "--db", str(autotune.db))
    assert done.returncode == 0, done.stderr
    return autotune
