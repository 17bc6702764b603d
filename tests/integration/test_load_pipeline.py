from __future__ import annotations

import dataclasses
import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autotuner import load_pipeline
from autotuner.engines.protocol import Pipeline
from autotuner.environment import current_environment
from autotuner.paths import spool_folder
from autotuner.serving import pipeline as serving_pipeline
from autotuner.serving.artifacts import compile_cache
from autotuner.serving.manifest import add_files
from autotuner.workload import RequestShape, Workload
from tests.support.snapshots import BF16, SMALL, entry, published
from tests.support.tiny_model import save_tiny_model
from toto_core.device import DeviceError
from toto_core.model_files import CheckpointError
from toto_core.settings import RuntimeSettings

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
DEFAULT = RuntimeSettings(compile_mode="default")
PRICES = 100 + np.sin(np.arange(64) / 5)
WITHOUT_COMPILER = """
import dataclasses, json, os, sys, warnings
from autotuner import load_pipeline
from toto_core.settings import RuntimeSettings
from tests.support.snapshots import SMALL

loads = []
workload = dataclasses.replace(SMALL, model=sys.argv[1])
for store, precision in zip(sys.argv[2::2], sys.argv[3::2]):
    settings = RuntimeSettings(compile_mode="default", precision=precision)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        pipeline = load_pipeline("AMD", workload=workload, settings=settings, db=store)
        answer = pipeline.predict([100.0 + i for i in range(64)], 4, 8)
    loads.append({
        "mean": answer.mean.tolist(),
        "source": pipeline.last_run_metadata["settings_source"],
        "mode": pipeline.settings.compile_mode,
        "cache": os.environ["TORCHINDUCTOR_CACHE_DIR"],
        "warnings": [str(w.message) for w in caught if issubclass(w.category, RuntimeWarning)],
    })
print(json.dumps(loads))
"""


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("caches") / "cache"


@pytest.fixture(autouse=True)
def variables(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TOTO_DISABLE_COMPILE", "TOTO_COMPILE_MODE", "AUTOTUNE_DB", "TORCHINDUCTOR_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AUTOTUNE_CACHE", str(cache))
    monkeypatch.setattr(
        serving_pipeline, "_failed", {}
    )  # a process remembers what failed in it; a test must not


@pytest.fixture
def db(tmp_path: Path) -> str:
    return str(tmp_path / "autotune.db")


def metadata(pipeline: Pipeline) -> dict[str, Any]:
    pipeline.predict(PRICES, 4, 8)
    return pipeline.last_run_metadata


def test_a_symbol_nobody_tuned_runs_in_eager_fp32_and_is_warm(db: str) -> None:
    pipeline = load_pipeline("amd", db=db)

    assert pipeline.settings == RuntimeSettings()
    assert pipeline.cold_start_ms is not None
    found = metadata(pipeline)
    assert (found["symbol"], found["settings_source"]) == ("AMD", "default")
    assert "TORCHINDUCTOR_CACHE_DIR" not in os.environ


def test_text_that_is_no_symbol_still_gets_a_pipeline(db: str) -> None:
    assert metadata(load_pipeline("../x", db=db))["settings_source"] == "default"


def test_a_promoted_symbol_runs_under_its_settings_and_is_warm_for_its_workload(db: str) -> None:
    shapes = (RequestShape(context_length=64, num_samples=None), RequestShape(context_length=96, variates=2))
    published(db, entry(workload=Workload(shapes=shapes, series_per_call=3)))
    pipeline = load_pipeline("AMD", db=db)

    assert pipeline.settings == BF16
    assert pipeline.last_run_metadata["num_samples_used"] == shapes[1].num_samples
    assert metadata(pipeline)["settings_source"] == "promotion"


def test_settings_that_are_given_win_and_the_kill_switch_over_them(
    db: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    published(db, entry())
    pipeline = load_pipeline("AMD", db=db, settings=RuntimeSettings())
    assert metadata(pipeline)["settings_source"] == "explicit"
    monkeypatch.setenv("TOTO_DISABLE_COMPILE", "1")
    pipeline = load_pipeline("AMD", db=db, settings=DEFAULT)
    assert pipeline.settings == RuntimeSettings()
    assert metadata(pipeline)["settings_source"] == "kill switch"


FIRST_FORECAST = """
import json, os, sys, time, warnings
begun = time.perf_counter()
import numpy as np
from autotuner import load_pipeline
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    pipeline = load_pipeline("AMD", db=sys.argv[1], verify="VERIFY" in os.environ)
    forecast = pipeline.predict(100 + np.sin(np.arange(64) / 5), 4, 8, seed=3)
print(json.dumps({
    "seconds": time.perf_counter() - begun,
    "proof": pipeline.last_run_metadata.get("restart_proof"),
    "source": pipeline.last_run_metadata["settings_source"],
    "mean": forecast.mean.flatten().tolist(),
    "compiled": pipeline.compile_report.really_compiled,
    "graphs": pipeline.compile_report.graphs,
    "found": pipeline.compile_report.cache_hits,
    "warnings": [str(w.message) for w in caught if issubclass(w.category, RuntimeWarning)],
    "heavy": sorted(set(sys.argv[2:]) & set(sys.modules)),
}))
"""
COMPILER = ["torch._dynamo", "torch._inductor"]
HEAVY = (*COMPILER, "huggingface_hub", "optuna", "pandas", "pyarrow", "sqlalchemy")


def first_forecast(db: str, **variables: str) -> dict[str, Any]:
    """What a fresh process says of its first forecast."""
    finished = subprocess.run(
        [sys.executable, "-c", FIRST_FORECAST, db, *HEAVY],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, **variables},
        cwd=Path(__file__).parents[2],
    )
    answer: dict[str, Any] = json.loads(finished.stdout.splitlines()[-1])
    return answer


@pytest.mark.slow
@pytest.mark.compiling
def test_a_fresh_process_with_stored_artifacts_needs_no_compiler_and_damage_is_made_anew(
    db: str, cache: Path, tmp_path: Path
) -> None:
    tiny = Workload(model=save_tiny_model(tmp_path / "tiny"), shapes=SMALL.shapes)
    published(db, entry(settings=DEFAULT, workload=tiny))
    eager = load_pipeline("AMD", db=db, settings=RuntimeSettings()).predict(PRICES, 4, 8, seed=3)

    cold = first_forecast(db)
    assert cold["compiled"]
    assert (cold["graphs"], cold["found"], cold["warnings"]) == (1, 0, [])
    assert cold["heavy"] == COMPILER
    np.testing.assert_allclose(cold["mean"], eager.mean.flatten(), rtol=1e-4)

    warm = first_forecast(db, PATH=str(tmp_path))  # where no compiler is
    assert (warm["graphs"], warm["found"], warm["warnings"]) == (1, 1, [])
    assert warm["heavy"] == []
    assert warm["mean"] == cold["mean"]

    stored = compile_cache(current_environment().fingerprint, DEFAULT.key)
    (library,) = (stored / "packages").glob("*.so")
    library.chmod(0o700)
    content = bytearray(library.read_bytes())
    content[len(content) // 2 :] = bytes(len(content) - len(content) // 2)
    library.write_bytes(content)  # such a library would load without a word
    anew = first_forecast(db)
    assert anew["compiled"]
    assert anew["found"] == 0
    assert anew["mean"] == cold["mean"]
    (said,) = anew["warnings"]
    assert f"{library} is not what was stored" in said

    kept, same = (first_forecast(db, PATH=str(tmp_path), VERIFY="1") for _ in range(2))
    assert (kept["found"], kept["proof"], same["found"], same["proof"]) == (1, "kept", 1, "same")
    (answer,) = (stored / "answers").iterdir()
    made = tmp_path / "made"
    (made / "answers").mkdir(parents=True)
    (made / "answers" / answer.name).write_text("what another library answered")
    add_files(made, stored)
    refused = first_forecast(db, VERIFY="1")
    assert refused["source"].startswith("quarantined: ")
    assert "a fixed request is answered otherwise than by the process that compiled" in refused["source"]
    assert not refused["compiled"]
    (said,) = refused["warnings"]
    assert "are quarantined, this process runs eager fp32" in said


@pytest.mark.slow
@pytest.mark.compiling
def test_a_pipeline_compiled_by_layer_is_warm_private_and_answers_as_eager_does(
    db: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    guessable = Path(tempfile.gettempdir()) / "torchinductor_me"  # torch sets this when it compiles unasked
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(guessable))
    by_layer = DEFAULT.replace(compile_scope="layer")
    published(db, entry(settings=by_layer))
    pipeline = load_pipeline("AMD", db=db, hold_compilation=True)
    report = pipeline.compile_report
    forecast = pipeline.predict(PRICES, 4, 8, seed=3)

    assert report.really_compiled
    assert pipeline.compile_report == report
    pipeline.predict(np.stack([PRICES, PRICES]), 2, 8)  # a shape nobody warmed up
    assert pipeline.compile_report.graphs == report.graphs
    assert metadata(pipeline)["torch_compile_success"] is True
    assert metadata(pipeline)["settings_source"] == "promotion"
    own = compile_cache(current_environment().fingerprint, by_layer.key)
    used = Path(os.environ["TORCHINDUCTOR_CACHE_DIR"])
    assert own.parent in used.parents
    assert stat.S_IMODE(used.parent.stat().st_mode) == 0o700
    assert any(own.rglob("*.so"))
    assert not spool_folder(db).exists()
    eager = load_pipeline("AMD", db=db, settings=RuntimeSettings()).predict(PRICES, 4, 8, seed=3)
    np.testing.assert_allclose(forecast.mean, eager.mean, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.compiling
def test_a_pipeline_that_falls_back_to_eager_by_itself_is_quarantined(
    db: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    users_own = str(tmp_path / "users")
    model = save_tiny_model(tmp_path / "tiny")
    shapes = (RequestShape(context_length=32, num_samples=4), RequestShape(context_length=64, num_samples=4))
    two_graphs = Workload(model=model, shapes=shapes)
    one_allowed = DEFAULT.replace(recompile_limit=1)
    published(db, entry(workload=two_graphs, settings=one_allowed))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", users_own)
    with pytest.warns(RuntimeWarning, match="AMD: settings default fp32 recompile_limit=1 are quarantined"):
        pipeline = load_pipeline("AMD", db=db)

    assert pipeline.settings == RuntimeSettings()
    source = metadata(pipeline)["settings_source"]
    assert source.startswith("quarantined: ran eagerly although asked to compile: ")
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == users_own
    (note,) = spool_folder(db).iterdir()
    assert (note.name[:11], note.suffix) == ("quarantine-", ".json")
    assert stat.S_IMODE(note.stat().st_mode) == 0o600
    assert stat.S_IMODE(note.parent.stat().st_mode) == 0o700
    fields = json.loads(note.read_text())
    assert (fields["symbol"], fields["model"], fields["source"]) == ("AMD", model, "promotion")
    assert RuntimeSettings.from_dict(fields["settings"]) == one_allowed
    assert Workload.from_dict(fields["workload"]) == two_graphs
    assert fields["environment_fingerprint"] == current_environment().fingerprint
    assert source.endswith(fields["reason"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = load_pipeline("AMD", db=db)
    assert metadata(again)["settings_source"] == source


def tiny_workload(tmp_path: Path) -> Workload:
    return dataclasses.replace(SMALL, model=save_tiny_model(tmp_path / "tiny"))


def without_compiler(tmp_path: Path, *loads: str) -> list[dict[str, Any]]:
    """What loads in a process that finds no C++ compiler gave; ``loads`` are stores and precisions in turn."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("sh", "ls", "uname", "ldconfig"):
        found = shutil.which(name)
        if found:
            (tools / name).symlink_to(found)
    kept = {name: value for name, value in os.environ.items() if name not in {"CXX", "CC"}}
    finished = subprocess.run(
        [sys.executable, "-c", WITHOUT_COMPILER, tiny_workload(tmp_path).model, *loads],
        check=True,
        capture_output=True,
        text=True,
        env=kept | {"PATH": str(tools)},
        cwd=Path(__file__).parents[2],
    )
    answer: list[dict[str, Any]] = json.loads(finished.stdout.splitlines()[-1])
    return answer


@pytest.mark.slow
@pytest.mark.compiling
def test_without_a_compiler_the_process_goes_on_in_eager_and_says_so(
    tmp_path: Path, db: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    unsafe, blocked = tmp_path / "unsafe", str(tmp_path / "blocked.db")
    unsafe.mkdir()
    unsafe.chmod(0o777)
    monkeypatch.setenv("AUTOTUNE_CACHE", str(unsafe))
    spool_folder(blocked).write_text("a file is in the way")
    first, second, third = without_compiler(tmp_path, db, "fp32", db, "fp32", blocked, "bf16")

    assert {load["mode"] for load in (first, second, third)} == {"eager"}
    assert np.isfinite(first["mean"]).all()
    assert first["mean"] == second["mean"] == third["mean"]
    assert first["source"] == second["source"]
    assert first["source"].startswith("quarantined: ")

    about_cache, about_settings = first["warnings"]
    assert "AMD: settings default fp32 are quarantined, this process runs eager fp32: " in about_settings
    assert "\n" not in about_settings
    assert second["warnings"] == []
    assert "no note of it could be left for the tuner" in third["warnings"][-1]

    assert f"{unsafe} is writable by others" in about_cache
    aside = Path(first["cache"]).parent
    assert f"compiling into {aside} instead" in about_cache
    assert list(unsafe.iterdir()) == []
    assert third["cache"] == first["cache"]
    assert not aside.exists()  # it went with its process

    (note,) = spool_folder(db).iterdir()
    fields = json.loads(note.read_text())
    assert (fields["kind"], fields["symbol"], fields["source"]) == ("quarantine", "AMD", "explicit")
    assert fields["settings_key"] == DEFAULT.key
    assert fields["workload_signature"] == tiny_workload(tmp_path).signature


def test_a_model_that_cannot_be_loaded_is_an_error_and_no_quarantine(db: str, tmp_path: Path) -> None:
    published(db, entry(workload=dataclasses.replace(SMALL, model=str(tmp_path / "gone"))))
    with pytest.raises(CheckpointError, match="no such model folder"):
        load_pipeline("AMD", db=db)
    assert not spool_folder(db).exists()


def test_a_device_that_is_not_there_is_an_error_and_no_quarantine(db: str) -> None:
    for device in ("tpu", "cpu0"):
        with pytest.raises(DeviceError):
            load_pipeline("AMD", db=db, settings=BF16, device=device)
    assert not spool_folder(db).exists()


def test_a_workload_that_eager_cannot_run_either_blames_no_settings(db: str) -> None:
    endless = Workload(shapes=(RequestShape(context_length=10**6, variates=10**6),), series_per_call=10**6)
    with pytest.raises(MemoryError):
        load_pipeline("AMD", db=db, settings=BF16, workload=endless)
    assert not spool_folder(db).exists()
