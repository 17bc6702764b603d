"""Toto 2.0 and Chronos-2 from a first run to production: tuned, proven, served, rechecked, kept by the daemon."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.chronos2_model import write_chronos2
from tests.support.command import Cli
from tests.support.toto2_model import FOUR_M, save_toto2_model

SERVE = """
import json, autotuner
from toto_core.series import find_series

prices = find_series("AMD", None).close
pipeline = autotuner.load_pipeline("AMD", verify=True)
forecast = pipeline.predict(prices[-128:], prediction_length=16)
print(json.dumps({
    "median": forecast.median[0, 0].tolist(), "low": forecast.quantile(0.1)[0, 0].tolist(),
    "settings": pipeline.settings.label, "metadata": pipeline.last_run_metadata,
    "compiled": pipeline.compile_report.really_compiled,
}))
"""


def random_4m(folder: Path) -> str:
    return save_toto2_model(folder, FOUR_M)


def small_chronos2(folder: Path) -> Path:
    return write_chronos2(folder, width=64, layers=4)


@pytest.mark.exhaustive
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("write", "engine", "seconds"),
    [(random_4m, "toto2", 180), (small_chronos2, "chronos2", 180)],
    ids=["Toto 2.0, 4m", "Chronos-2"],
)
def test_a_model_of_another_family_is_tuned_from_end_to_end(
    tmp_path: Path, write: Callable[[Path], Any], engine: str, seconds: int
) -> None:
    autotune = Cli(tmp_path)
    write(tmp_path / "model")
    model = str(tmp_path / "model")

    def ask(*arguments: str) -> Any:
        done = autotune.run(*arguments, timeout=600)
        assert done.returncode == 0, (arguments, done.stderr)
        return json.loads(done.stdout) if "--json" in arguments else done.stdout

    shape = ("--context-length", "128", "--prediction-length", "16")
    document = ask("run", "--symbol", "AMD", "--model", model, *shape, "--timeout", str(seconds), "--json")
    assert document["promoted"] is True
    assert document["engine"].startswith(f"{engine} ")
    assert document["trials"]["measured"] >= 3
    assert document["drift"] is not None

    assert ask("show", "AMD", "--json")["settings"] == document["settings"]
    served = json.loads(autotune.python(SERVE))
    assert len(served["median"]) == 16
    assert served["metadata"]["settings_source"] == "promotion"
    assert served["compiled"] == (document["settings"]["compile_mode"] != "eager")
    if served["compiled"]:
        assert served["metadata"]["restart_proof"] in {"same", "kept"}
    assert ask("recheck", "AMD", "--json")["kept"] is True
    assert "AMD" in ask("forecast", "--symbol", "AMD")
    assert "AMD" in ask("explain", "AMD")
    ask("daemon", "--once")
    assert ask("engines", "--model", model, "--json")["model"]["engine"] == engine
