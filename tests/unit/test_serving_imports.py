from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.snapshots import entry, published

HEAVY = (
    "torch",
    "optuna",
    "pandas",
    "click",
    "sqlalchemy",
    "numpy",
    "pydantic",
    "huggingface_hub",
    "alembic",
    "scipy",
)
SLOW_STANDARD = (
    "asyncio",
    "csv",
    "email",
    "glob",
    "http",
    "importlib.metadata",
    "logging",
    "platform",
    "random",
    "shutil",
    "socket",
    "subprocess",
    "tempfile",
    "threading",
    "tomllib",
    "uuid",
    "zipfile",
)
NOT_FOR_LOOKUPS = (
    *SLOW_STANDARD,
    "platformdirs",
    "psutil",
    "storage.records",
    "storage.whole_files",
    "autotuner.serving.pipeline",
    "autotuner.serving.spool",
    "toto_core.compile_report",
)
"""Of the standard library and of ours, what a trading process need not wait for before its first lookup."""
LOOK_UP = """
import json, sys
import autotuner
found = autotuner.lookup("AMD")
heavy = sorted(set(sys.argv[1:]) & set(sys.modules))
print(json.dumps({"source": found.source, "heavy": heavy}))
"""


def in_another_process(code: str, watched: tuple[str, ...] = HEAVY, **variables: str) -> Any:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TOTO_", "AUTOTUNE_"))}
    finished = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *watched],
        check=True,
        capture_output=True,
        text=True,
        env=kept | variables,
    )
    assert finished.stderr == ""
    return json.loads(finished.stdout)


def test_a_lookup_in_a_large_store_imports_nothing_heavy(tmp_path: Path) -> None:
    db = str(tmp_path / "autotune.db")
    published(db, *(entry(f"S{number}") for number in range(499)), entry())

    assert in_another_process(LOOK_UP, AUTOTUNE_DB=db) == {"source": "promotion", "heavy": []}


def test_a_lookup_without_a_store_imports_nothing_heavy_either(tmp_path: Path) -> None:
    answer = in_another_process(LOOK_UP, HOME=str(tmp_path), XDG_DATA_HOME=str(tmp_path / "data"))

    assert answer["source"] == "default"
    assert answer["heavy"] == []
    assert list(tmp_path.iterdir()) == []


def test_importing_the_package_and_a_first_lookup_load_nothing_that_they_can_do_without(
    tmp_path: Path,
) -> None:
    db = str(tmp_path / "autotune.db")
    published(db, entry())
    watched = (*HEAVY, *NOT_FOR_LOOKUPS)
    imported = (
        "import json, sys; import autotuner; print(json.dumps(sorted(set(sys.argv[1:]) & set(sys.modules))))"
    )

    own = in_another_process(imported.replace("autotuner", "pathlib"), watched)  # Python 3.13's imports glob
    ours = tuple(name for name in watched if name not in own)

    assert in_another_process(imported, ours) == []
    answer = in_another_process(LOOK_UP, ours, AUTOTUNE_DB=db)
    assert (answer["source"], answer["heavy"]) == ("promotion", [])


def test_the_pipeline_is_found_on_first_use() -> None:
    import autotuner
    from autotuner.serving.pipeline import load_pipeline

    assert autotuner.load_pipeline is load_pipeline
    with pytest.raises(AttributeError, match="has no attribute 'Surprise'"):
        autotuner.Surprise  # type: ignore[attr-defined]  # noqa: B018 - reading the name is what raises


def test_importing_what_finds_artifacts_loads_nothing_that_asks_after_processes() -> None:
    code = (
        "import json, sys; import autotuner.serving.artifacts; "
        "print(json.dumps(sorted({*sys.argv[1:], 'psutil'} & set(sys.modules))))"
    )
    assert in_another_process(code) == []


def test_importing_what_loads_pipelines_leaves_torch_and_its_variables_alone(tmp_path: Path) -> None:
    code = (
        "import json, os, sys; before = dict(os.environ); import autotuner.serving.pipeline; "
        "print(json.dumps([sorted(set(sys.argv[1:]) & set(sys.modules)), before == dict(os.environ)]))"
    )
    assert in_another_process(code) == [[], True]
