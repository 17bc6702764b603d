"""``run --model A --model B``: a symbol runs the model that forecasts it better, and of equals the faster."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from autotuner.store import Store
from tests.support.command import Cli
from tests.support.nlinear_model import installed_example, write_nlinear

SHAPE = ("--context-length", "64", "--prediction-length", "8", "--num-samples", "16")


@pytest.fixture(scope="module")
def extra(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Where the documentation's engine is installed."""
    return installed_example(tmp_path_factory.mktemp("engine"))


@pytest.fixture(scope="module")
def autotune(tmp_path_factory: pytest.TempPathFactory) -> Cli:
    return Cli(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def good(autotune: Cli) -> Path:
    return write_nlinear(autotune.folder / "good")


@pytest.fixture(scope="module")
def bad(autotune: Cli, good: Path) -> Path:
    """Wrong by 8 % of price wherever it is asked."""
    folder = autotune.folder / "bad"
    shutil.copytree(good, folder)
    weights = load_file(folder / "model.safetensors")
    weights["spread"] = weights["spread"] + 0.08
    save_file(weights, folder / "model.safetensors")
    return folder


def run(autotune: Cli, extra: dict[str, str], *arguments: str) -> dict[str, Any]:
    options = (*SHAPE, "--trials", "2", "--timeout", "15", "--json")
    done = autotune.run("run", "--symbol", "AMD", *arguments, *options, extra=extra)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_the_model_that_is_better_is_chosen_whatever_the_other_costs(
    autotune: Cli, extra: dict[str, str], good: Path, bad: Path
) -> None:
    document = run(autotune, extra, "--model", str(bad), "--model", str(good))

    worse, better = document["models"]
    assert (worse["out"], worse["chosen"], better["chosen"]) == ("less accurate", False, True)
    assert worse["beside_best"]["quantile_loss"]["low"] > 1.0
    assert document["model"] == str(good)
    assert document["promoted"] is True
    assert document["decision"]["reason"].startswith(f"{good} of 2 models: ")
    with Store(str(autotune.db), create=False) as store:
        assert [record.model for record in store.records.promotions("AMD")] == [str(good)]
    shown = autotune.run("show", "AMD", "--json", extra=extra)
    assert json.loads(shown.stdout)["model"] == str(good)


@pytest.mark.exhaustive
def test_between_equals_the_one_that_runs_stays_unless_another_is_faster(
    autotune: Cli, extra: dict[str, str], good: Path
) -> None:
    twin = autotune.folder / "twin"
    shutil.copytree(good, twin)
    document = run(autotune, extra, "--model", str(twin), "--model", str(good))

    first, second = document["models"]
    assert first["out"] is second["out"] is None
    assert first["quantile_loss"] == second["quantile_loss"]
    chosen = next(each for each in document["models"] if each["chosen"])
    if chosen is first:  # only for a speed-up that is proven
        assert first["times_as_fast"]["low"] >= 1.03
    else:
        assert "what it ran before stays" in document["decision"]["reason"]


def test_a_limit_that_no_model_keeps_is_one_line_and_changes_nothing(
    autotune: Cli, extra: dict[str, str], good: Path, bad: Path
) -> None:
    before = autotune.run("history", "AMD", "--json", extra=extra).stdout
    models = ("--model", str(bad), "--model", str(good))
    refused = autotune.run("run", "--symbol", "AMD", *models, *SHAPE, "--max-mae", "0.001", extra=extra)
    assert refused.returncode == 1
    last = refused.stderr.splitlines()[-1]
    assert last.startswith("Error: no model may be chosen: ")
    assert last.count("is above the limit of 0.001") == 2
    assert autotune.run("history", "AMD", "--json", extra=extra).stdout == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--max-mae", "1"), "give --model again"),
        (
            ("--model", "a", "--model", "b", "--replay", __file__, "--db", "x.db"),
            "--replay answers for one model",
        ),
    ],
    ids=["a limit without a choice", "replay"],
)
def test_options_that_make_no_sense_together_are_refused(
    autotune: Cli, arguments: tuple[str, ...], said: str
) -> None:
    refused = autotune.run("run", "--symbol", "AMD", *arguments)
    assert refused.returncode == 2
    assert said in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
