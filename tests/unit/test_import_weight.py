from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = ("torch", "numpy", "pandas", "pyarrow", "huggingface_hub", "safetensors", "scipy")
IMPORT = """
import importlib, json, sys
importlib.import_module(sys.argv[1])
print(json.dumps(sorted(set(sys.argv[2:]) & set(sys.modules))))
"""


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
        "toto_core.model_files",
        "toto_core.compile_config",
        "toto_core.compile_report",
        "toto_core.config",
        "toto_core.symbols",
        "toto_core.version",
    ],
)
def test_importing_a_light_module_loads_nothing_heavy(module: str) -> None:
    assert loaded_by(module) == []


def test_the_pipeline_does_load_torch() -> None:
    assert "torch" in loaded_by("toto_core.pipeline")


def test_the_names_of_the_package_are_found_on_first_use() -> None:
    import toto_core
    from toto_core.forecast import Forecast
    from toto_core.pipeline import TotoPipeline

    assert toto_core.TotoPipeline is TotoPipeline
    assert toto_core.Forecast is Forecast
    with pytest.raises(AttributeError, match="has no attribute 'Surprise'"):
        toto_core.Surprise  # noqa: B018 - reading the name is what raises
