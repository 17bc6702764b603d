"""How price files are read is said on the command line or in ``autotune.toml``, and what came of it is shown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from autotuner.daemon.config import read_config
from autotuner.errors import UsageError
from autotuner.figures import Figures, figures_from_json
from tests.support.command import Cli
from toto_core.prices.options import AS_THEY_LIE, PriceOptions, PriceSource

FILES = Path(__file__).parents[1] / "data" / "prices"
GERMAN = str(FILES / "german_semicolon.csv")
SHORT = ("--symbol", "ZQA", "--context-length", "32", "--horizon", "4", "--num-samples", "8", "--eager")


@pytest.fixture
def autotune(tmp_path: Path) -> Cli:
    return Cli(tmp_path)


def forecast(autotune: Cli, *arguments: str) -> dict[str, Any]:
    done = autotune.run("forecast", *SHORT, *arguments, "--json")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_an_option_decides_what_a_file_leaves_open(autotune: Cli) -> None:
    refused = autotune.run("forecast", *SHORT, "--data", GERMAN)
    assert refused.returncode == 1
    assert refused.stderr.startswith(f"Error: {GERMAN}: no price column by a name we know")

    series = forecast(autotune, "--data", GERMAN, "--price-column", "Schluss")["series"]
    assert (series["points"], series["source"], series["repairs"]) == (40, GERMAN, [])


def test_the_configuration_file_says_it_for_every_command_and_the_command_line_wins(autotune: Cli) -> None:
    config = autotune.folder / "autotune.toml"
    config.write_text('[prices]\nprice_column = "Schluss"\n')
    assert forecast(autotune, "--data", GERMAN)["series"]["points"] == 40
    config.write_text('[prices]\nprice_column = "Nichts"\n')
    assert forecast(autotune, "--data", GERMAN, "--price-column", "Schluss")["series"]["points"] == 40
    config.write_text('[prices]\ndecimal = ";"\n')
    wrong = autotune.run("forecast", *SHORT, "--data", GERMAN)
    assert wrong.returncode == 2
    assert wrong.stderr == "Error: autotune.toml: prices: decimal ';': must be '.' or ','\n"


def test_what_was_repaired_is_said_and_drawn(autotune: Cli) -> None:
    file = str(FILES / "yahoo_null_row.csv")
    expected = ["column 'Adj Close' used rather than 'Close'", "1 row without Adj Close left out"]
    assert forecast(autotune, "--data", file)["series"]["repairs"] == expected
    drawn = autotune.run("forecast", *SHORT, "--data", file)
    for line in (file.rpartition("/")[2], *expected):
        assert line in " ".join(drawn.stdout.split()).replace("\n", "")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('[prices]\ntimezone = "Mars/Olympus"\n', "is not known: use a name such as America/New_York"),
        ('[prices]\ndecimal = ";"\n', "decimal ';': must be '.' or ','"),
        ("[prices]\nclose = 1\n", "Extra inputs are not permitted"),
    ],
)
def test_the_daemon_refuses_a_section_that_makes_no_sense(tmp_path: Path, text: str, reason: str) -> None:
    file = tmp_path / "autotune.toml"
    file.write_text(text)
    with pytest.raises(UsageError) as refusal:
        read_config(file)
    assert str(refusal.value).startswith(f"{file}: prices")
    assert reason in str(refusal.value)


def test_the_daemon_reads_every_symbol_by_it(tmp_path: Path) -> None:
    file = tmp_path / "autotune.toml"
    file.write_text(
        '[prices]\nallow_negative = true\n[defaults]\ndata = "prices"\n[symbols."CL=F"]\nprofile = "accuracy"\n'
    )
    config = read_config(file)
    options = PriceOptions(allow_negative=True)
    assert config.prices_of("CL=F") == PriceSource(data=str(tmp_path / "prices"), options=options)


def test_what_is_given_goes_before_what_was_and_options_alone_read_the_same_file() -> None:
    before = PriceSource(data="/prices", options=PriceOptions(decimal=","))
    assert PriceSource().or_else(before) == before
    assert PriceSource(data="/new").or_else(before) == PriceSource(data="/new")
    dotted = PriceOptions(decimal=".")
    assert PriceSource(options=dotted).or_else(before) == PriceSource(data="/prices", options=dotted)


def test_a_promotion_keeps_where_its_prices_lay_and_an_older_one_has_none() -> None:
    source = PriceSource(
        data="/prices/AMD.csv", options=PriceOptions(timezone="Europe/Berlin", allow_negative=True)
    )
    assert figures_from_json(Figures(prices=source).to_json()).prices == source
    assert figures_from_json("{}").prices is None
    assert figures_from_json('{"prices": {"data": null}}').prices == PriceSource(options=AS_THEY_LIE)
