from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.tiny_model import save_tiny_model
from tests.support.toto2_model import save_toto2_model
from toto_core.settings import RuntimeSettings

HEAVY = ("torch", "numpy", "pandas", "pyarrow", "huggingface_hub", "safetensors", "scipy")
IMPORT = """
import importlib, json, sys
importlib.import_module(sys.argv[1])
print(json.dumps(sorted(set(sys.argv[2:]) & set(sys.modules))))
"""
FORECAST = """
import json, sys
from toto_core import compile_config
from toto_core.settings import RuntimeSettings

model, settings, steps = sys.argv[1:4]
compile_config.apply(environ={})
series = [100.0 + i for i in range(64)]
if "toto2" in model:
    from toto_core.toto2 import Toto2Pipeline

    pipeline = Toto2Pipeline.from_pretrained(model, settings=RuntimeSettings.from_json(settings))
    pipeline.predict(series, int(steps), decode_block_size=8)
else:
    from toto_core.pipeline import TotoPipeline

    pipeline = TotoPipeline.from_pretrained(model, settings=RuntimeSettings.from_json(settings))
    pipeline.predict(series, int(steps), 8)
print(json.dumps(sorted(set(sys.argv[4:]) & set(sys.modules))))
"""


def loaded_by_a_forecast(model: str, settings: RuntimeSettings, steps: int) -> list[str]:
    watched = (
        "torch._dynamo",
        "torch._inductor",
        "pandas",
        "pyarrow",
        "huggingface_hub",
        "optuna",
        "sqlalchemy",
    )
    finished = subprocess.run(
        [sys.executable, "-c", FORECAST, model, settings.to_json(), str(steps), *watched],
        check=True,
        capture_output=True,
        text=True,
        timeout=300,
    )
    found: list[str] = json.loads(finished.stdout.splitlines()[-1])
    return found


def loaded_by(module: str) -> list[str]:
    finished = subprocess.run(
        [sys.executable, "-W", "error", "-c", IMPORT, module, *HEAVY],
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
    )
    found: list[str] = json.loads(finished.stdout)
    return found


@pytest.mark.parametrize(
    "module",
    [
        "toto_core",
        "toto_core.settings",
        "toto_core.container",
        "toto_core.model_files",
        "toto_core.compile_config",
        "toto_core.compile_report",
        "toto_core.model_folder",
        "toto_core.toto1.model_config",
        "toto_core.toto2",
        "toto_core.toto2.model_config",
        "toto_core.toto2.options",
        "toto_core.symbols",
        "toto_core.version",
    ],
)
def test_importing_a_light_module_loads_nothing_heavy(module: str) -> None:
    assert loaded_by(module) == []


def test_importing_the_series_needs_numpy_alone_and_reading_them_needs_the_rest() -> None:
    assert loaded_by("toto_core.series") == ["numpy"]
    assert loaded_by("toto_core.prices.parquet") == ["numpy", "pyarrow"]


def test_the_pipeline_does_load_torch() -> None:
    assert "torch" in loaded_by("toto_core.pipeline")


def test_the_names_of_the_package_are_found_on_first_use() -> None:
    import toto_core
    from toto_core.forecast import Forecast
    from toto_core.pipeline import TotoPipeline

    assert toto_core.TotoPipeline is TotoPipeline
    assert toto_core.Forecast is Forecast
    with pytest.raises(AttributeError, match="has no attribute 'Surprise'"):
        toto_core.Surprise  # type: ignore[attr-defined]  # noqa: B018 - reading the name is what raises


def test_a_forecast_in_eager_mode_imports_no_compiler(tmp_path: Path) -> None:
    model = save_tiny_model(tmp_path / "tiny")
    assert loaded_by_a_forecast(model, RuntimeSettings(), 20) == []
    assert loaded_by_a_forecast("toto-mini", RuntimeSettings(precision="bf16"), 40) == []
    assert loaded_by_a_forecast(save_toto2_model(tmp_path / "toto2"), RuntimeSettings(), 20) == []
