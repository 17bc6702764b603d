"""Real builds side by side: kept, found again, ended when they fail or when their parent is killed."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from safetensors.torch import load_file, save_file

from autotuner.measurement.builds import built_before, note_built
from autotuner.measurement.outcome import ArmLaunch, ColdStart, Failed, Measured
from autotuner.measurement.process_runner import ProcessRunner
from autotuner.paths import CACHE_VARIABLE, trial_artifacts, trials_folder
from autotuner.search.profiles import profile
from autotuner.tuning.measuring import MeasuringPlan, plan_measuring, prepare
from autotuner.workload import RequestShape, Workload
from tests.support.families import Family
from tests.support.faulty_children import HANG, SEGFAULT, children_that
from tests.support.process_runners import process_runner
from tests.support.tiny_model import save_tiny_model
from toto_core.series import PriceSource
from toto_core.settings import RuntimeSettings

pytestmark = pytest.mark.slow

DEFAULT = RuntimeSettings(compile_mode="default", num_threads=1)
PACKED = DEFAULT.replace(freezing=True)
CRASHES = DEFAULT.replace(recompile_limit=7)
SHAPE = RequestShape(context_length=64, prediction_length=4, num_samples=4)
KILLED = """
import pathlib, sys
sys.path.insert(0, {root!r})
from tests.integration.test_builds import DEFAULT, PACKED, runner_over
runner_over(pathlib.Path(sys.argv[1])).build((DEFAULT, PACKED), seconds=300)
"""


def runner_over(folder: Path) -> ProcessRunner:
    """A runner for a very small model that is the same in every process."""
    model = folder / "model"
    name = str(model) if model.exists() else save_tiny_model(model)
    return process_runner(folder, workload=Workload(model=name, shapes=(SHAPE,)), blocks=2)


@pytest.fixture(autouse=True)
def _two_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autotuner.measurement.process_runner.build_slots", lambda _: 2)


def test_builds_are_kept_for_trials_and_for_a_run_that_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    family = Family(monkeypatch)
    fails = f"settings.recompile_limit == {CRASHES.recompile_limit}"
    children_that(SEGFAULT, folder=tmp_path / "site", monkeypatch=monkeypatch, when=fails)
    runner = runner_over(tmp_path)

    built = runner.build((DEFAULT, CRASHES, PACKED), seconds=240.0)

    crashed, start = built[CRASHES], built[DEFAULT]
    assert isinstance(crashed, Failed)
    assert "SIGSEGV" in crashed.detail
    assert isinstance(start, ColdStart)
    assert start.ms > 500.0
    assert start.beside == 1
    assert family.left(within=5.0) == []

    outcome = runner.measure(DEFAULT, seconds=60.0, again=True)
    assert isinstance(outcome, Measured)
    assert outcome.cold_start_ms is None
    assert outcome.warm_start_ms is not None
    assert outcome.warm_start_ms < start.ms / 2
    (launched,) = runner.launch((DEFAULT,), blocks=1, seconds=60.0).arms
    runner.close()
    assert isinstance(launched, ArmLaunch)
    assert launched.reproduced

    begun = time.monotonic()
    later = runner_over(tmp_path)
    assert later.build((DEFAULT, PACKED), seconds=60.0) == {key: built[key] for key in (DEFAULT, PACKED)}
    assert time.monotonic() - begun < 5.0  # found, not built again

    exchange_library(tmp_path)
    (exchanged,) = later.launch((DEFAULT,), blocks=1, seconds=60.0).arms
    later.close()
    assert isinstance(exchanged, Failed)
    assert exchanged.kind == "not_reproducible"
    assert "a fixed request is answered otherwise than by the process that compiled" in exchanged.detail
    artifacts = trial_artifacts(tmp_path / "caches", DEFAULT)
    assert built_before(artifacts) is None
    assert not artifacts.exists()  # the next launch compiles anew


def exchange_library(folder: Path) -> None:
    """Put another library in the place of DEFAULT's, which differs by rounding: the last bit of some weights."""
    weights = load_file(folder / "model" / "model.safetensors")
    some = weights["model.transformer.layers.0.mlp.0.weight"].numpy()
    library = next(trial_artifacts(folder / "caches", DEFAULT).rglob("packages/*.so"))
    content = library.read_bytes()
    assert some.tobytes() in content
    library.chmod(0o700)
    library.write_bytes(content.replace(some.tobytes(), (some.view("u4") ^ 1).tobytes()))


def test_what_was_built_of_other_weights_is_not_taken_for_the_model_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    model = tmp_path / "model"
    workload = Workload(model=save_tiny_model(model), shapes=(SHAPE,))

    def planned() -> tuple[Path, MeasuringPlan]:
        prepared = prepare("AMD", workload, prices=PriceSource(), device="cpu")
        subject = prepared.subject
        folder = trials_folder(subject.environment.fingerprint, workload.signature, subject.model_digest)
        return trial_artifacts(folder, DEFAULT), plan_measuring(prepared, profile=profile("production"))

    artifacts, before = planned()
    artifacts.mkdir(parents=True)
    (artifacts / "library").write_bytes(b"compiled")
    note_built(artifacts, ColdStart(ms=1_000.0))
    assert before.holds(DEFAULT)

    weights = model / "model.safetensors"
    tensors = load_file(weights)
    name = next(iter(tensors))
    save_file(tensors | {name: tensors[name] + 1.0}, weights)  # trained further, under the same name
    artifacts, after = planned()
    assert not after.holds(DEFAULT)
    assert built_before(artifacts) is None


def test_the_one_that_is_wanted_has_timed_out_when_it_was_not_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    family = Family(monkeypatch)
    children_that(HANG, folder=tmp_path / "site", monkeypatch=monkeypatch)
    runner = runner_over(tmp_path)

    built = runner.build((DEFAULT, PACKED), seconds=5.0)

    assert built == {DEFAULT: Failed(kind="timeout", detail="not built in time")}  # of the other, no verdict
    assert family.left(within=5.0) == []
    runner.close()


def test_a_parent_that_is_killed_leaves_no_compiler_and_no_half_build(tmp_path: Path) -> None:
    runner_over(tmp_path).close()  # the model is there for both
    code = KILLED.format(root=str(Path(__file__).parents[2]))
    parent = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)])
    children: list[psutil.Process] = []
    deadline = time.monotonic() + 60.0
    while len(children) < 3 and time.monotonic() < deadline:  # two builds and a compiler
        time.sleep(0.1)
        children = psutil.Process(parent.pid).children(recursive=True)
    parent.kill()
    parent.wait()

    _, alive = psutil.wait_procs(children, timeout=5.0)
    assert alive == []
    assert not list(tmp_path.rglob("*.built"))


@pytest.mark.exhaustive  # the suite kills at the moment when both compile
@pytest.mark.timeout(600)
def test_a_kill_at_any_moment_leaves_no_process_and_the_next_run_goes_on_with_what_was_built(
    tmp_path: Path,
) -> None:
    runner_over(tmp_path).close()
    code = KILLED.format(root=str(Path(__file__).parents[2]))
    folders = [trial_artifacts(tmp_path / "caches", settings) for settings in (DEFAULT, PACKED)]
    for moment in (1.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 12.0, 15.0, 20.0):
        before = [built_before(folder) for folder in folders]
        parent = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)])
        time.sleep(moment)
        children = psutil.Process(parent.pid).children(recursive=True) if parent.poll() is None else []
        parent.kill()
        parent.wait()
        _, alive = psutil.wait_procs(children, timeout=5.0)
        assert alive == []
        for folder, built in zip(folders, before, strict=True):
            assert built is None or built_before(folder) == built  # found, not made again
            libraries = list((folder / "packages").glob("*.so"))
            assert built_before(folder) is None or len(libraries) == 1
        if all(before):
            break
    later = runner_over(tmp_path)
    built_at_last = later.build((DEFAULT, PACKED), seconds=240.0)
    launched = later.launch((DEFAULT, PACKED), blocks=1, seconds=60.0).arms
    later.close()
    assert all(isinstance(start, ColdStart) for start in built_at_last.values())
    assert [isinstance(arm, ArmLaunch) and arm.reproduced for arm in launched] == [True, True]
