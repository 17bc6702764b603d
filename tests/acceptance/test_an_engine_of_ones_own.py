"""The engine of the documentation: installed from its folder, tuned, proven, served, watched, removed."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from autotuner.store import Store
from tests.support.command import Cli
from tests.support.nlinear_model import installed_example, write_nlinear

PYTHON = "AUTOTUNE_ENGINES__NLINEAR__PYTHON"
SERVE = """
import json, autotuner
from autotuner.serving.lookup import lookup
from toto_core.series import find_series

prices = find_series("AMD", None).close
pipeline = autotuner.load_pipeline("AMD")
forecast = pipeline.predict(prices[-64:], prediction_length=8)
found = lookup("AMD")
print(json.dumps({
    "source": found.source, "model": found.model, "settings": found.settings.label,
    "low": forecast.quantile(0.1)[0, 0].tolist(), "median": forecast.median[0, 0].tolist(),
    "high": forecast.quantile(0.9)[0, 0].tolist(), "metadata": pipeline.last_run_metadata,
}))
"""
LOOK_UP = """
import json
from autotuner.serving.lookup import lookup
found = lookup("AMD")
print(json.dumps({"source": found.source, "reasons": found.reasons}))
"""


@pytest.fixture(scope="module")
def autotune(tmp_path_factory: pytest.TempPathFactory) -> Cli:
    return Cli(tmp_path_factory.mktemp("tuned"))


@pytest.fixture(scope="module")
def with_engine(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The example, installed for those that are told to look there."""
    return installed_example(tmp_path_factory.mktemp("engine"))


@pytest.fixture(scope="module")
def model(autotune: Cli) -> Path:
    return write_nlinear(autotune.folder / "model")


@pytest.fixture(scope="module")
def document(autotune: Cli, with_engine: dict[str, str], model: Path) -> dict[str, object]:
    """Of a run of some trials and a duel, whose processes another interpreter runs."""
    own = autotune.folder / "python"
    own.write_text(f'#!/bin/sh\necho "$@" >> {autotune.folder}/started\nexec {sys.executable} "$@"\n')
    own.chmod(0o700)
    shape = ("--context-length", "64", "--prediction-length", "8")
    done = autotune.run(
        "run", "--symbol", "AMD", "--model", str(model), *shape, "--trials", "3", "--timeout", "25", "--json",
        extra={**with_engine, PYTHON: str(own)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = json.loads(done.stdout)
    return found


def test_it_is_listed_and_takes_its_model(autotune: Cli, with_engine: dict[str, str], model: Path) -> None:
    done = autotune.run("engines", "--model", str(model), "--json", extra=with_engine)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert ("nlinear", "1.0", "") in [(e["engine"], e["version"], e["fault"]) for e in found["engines"]]
    assert (found["model"]["engine"], found["model"]["licence"]) == ("nlinear", "MIT")
    assert found["model"]["shortest_context"] == 64


def test_a_run_measures_it_beside_its_own_eager_fp32(document: dict[str, object], autotune: Cli) -> None:
    assert document["promoted"] is True
    assert document["trials"]["measured"] >= 2  # type: ignore[index]
    assert document["drift"] is not None
    with Store(str(autotune.db), create=False) as store:
        promotion = store.active("AMD")
    assert promotion is not None
    assert promotion.environment.engine == "nlinear 1.0"


def test_an_interpreter_of_its_own_runs_its_processes(document: dict[str, object], autotune: Cli) -> None:
    started = (autotune.folder / "started").read_text().splitlines()
    assert len([line for line in started if "autotuner.measurement.child.main" in line]) >= 3


def test_an_interpreter_that_cannot_run_it_is_one_line(
    autotune: Cli, with_engine: dict[str, str], model: Path
) -> None:
    arguments = ("run", "--symbol", "AMD", "--model", str(model), "--context-length", "64", "--trials", "1")
    refused = autotune.run(*arguments, extra={**with_engine, PYTHON: "/bin/false"})
    assert refused.returncode == 1
    assert f"{PYTHON}: /bin/false cannot run the engine nlinear" in refused.stderr.splitlines()[-1]


def test_it_is_served_with_its_quantiles_and_watched(
    document: dict[str, object], autotune: Cli, with_engine: dict[str, str], model: Path
) -> None:
    served = json.loads(autotune.python(SERVE, extra=with_engine))
    assert (served["source"], served["model"]) == ("promotion", str(model))
    for low, median, high in zip(served["low"], served["median"], served["high"], strict=True):
        assert low < median < high
    assert served["metadata"]["settings_source"] == "promotion"
    for arguments in (("show", "AMD"), ("recheck", "AMD"), ("forecast", "AMD"), ("top",), ("explain", "AMD")):
        done = autotune.run(*arguments, extra=with_engine)
        assert done.returncode == 0, (arguments, done.stderr)
    ticked = autotune.run("daemon", "--once", extra=with_engine)
    assert ticked.returncode == 0, ticked.stderr


def test_when_it_is_gone_production_is_told_so_and_the_store_stays_readable(
    document: dict[str, object], autotune: Cli, model: Path
) -> None:
    found = json.loads(autotune.python(LOOK_UP))
    assert found["source"] == "default"
    assert any("engine: nlinear 1.0 there, nlinear not installed here" in why for why in found["reasons"])
    for arguments in (("show", "AMD"), ("list",), ("history", "AMD")):
        done = autotune.run(*arguments)
        assert done.returncode == 0, (arguments, done.stderr)
    refused = autotune.run("run", "--symbol", "AMD", "--model", str(model), "--trials", "1")
    assert refused.returncode == 1
    assert refused.stderr.strip().splitlines()[-1].startswith("Error: ")
    assert "no engine here takes this model" in refused.stderr


def test_an_engine_that_cannot_be_imported_is_named_and_costs_the_others_nothing(
    tmp_path: Path,
) -> None:
    extra = installed_example(tmp_path)
    broken = tmp_path / "site"
    (broken / "nlinear_engine.py").write_text("raise RuntimeError('half an upgrade')\n")
    autotune = Cli(tmp_path)
    done = autotune.run("engines", "--json", extra=extra)
    assert done.returncode == 0, done.stderr
    faults = {each["engine"]: each["fault"] for each in json.loads(done.stdout)["engines"]}
    assert "half an upgrade" in faults["nlinear"]
    assert faults["toto1"] == ""
