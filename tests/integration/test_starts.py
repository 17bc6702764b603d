"""A real start says whether it found a filled compile cache, and is cold only where it began with an empty one."""

from __future__ import annotations

from pathlib import Path

import pytest

from autotuner.measurement.outcome import ArmLaunch, Failed, Measured
from autotuner.paths import trial_artifacts
from autotuner.workload import RequestShape, Workload
from tests.support.process_runners import EAGER, process_runner
from tests.support.tiny_model import save_tiny_model

pytestmark = pytest.mark.slow

COMPILED = EAGER.replace(compile_mode="default")


@pytest.mark.compiling
@pytest.mark.exhaustive  # the suite starts production and a second run from what was stored
def test_what_an_earlier_process_compiled_makes_the_next_start_warm(tmp_path: Path) -> None:
    workload = Workload(
        model=str(save_tiny_model(tmp_path / "model")),
        shapes=(RequestShape(context_length=64, prediction_length=4, num_samples=4),),
    )
    runner = process_runner(tmp_path, workload=workload, blocks=2)
    try:
        launch = runner.launch((COMPILED, EAGER), blocks=1, seconds=250.0)
        again = runner.measure(COMPILED, seconds=250.0, again=True)
    finally:
        runner.close()

    first, eager = launch.arms
    assert isinstance(first, ArmLaunch)
    assert isinstance(eager, ArmLaunch)
    assert (first.was_warm, eager.was_warm) == (False, False)  # nothing was there; eager compiles nothing
    assert isinstance(again, Measured)
    assert (again.was_warm, again.cold_start_ms) == (True, None)
    assert again.start_ms < first.start_ms


@pytest.mark.exhaustive  # the suite changes the last bit of a very small model's library
def test_a_library_of_other_kernels_in_the_place_of_one_is_refused(tmp_path: Path) -> None:
    searched = COMPILED.replace(compile_mode="max-autotune", freezing=True)
    folders = [trial_artifacts(tmp_path / "caches", settings) for settings in (COMPILED, searched)]
    runner = process_runner(tmp_path, blocks=2)
    try:
        runner.build((COMPILED, searched), seconds=250.0)
        first = runner.launch((COMPILED, searched), blocks=1, seconds=120.0).arms
        ours, theirs = (next(folder.rglob("packages/*.so")) for folder in folders)
        ours.chmod(0o700)
        ours.write_bytes(theirs.read_bytes())
        (after,) = runner.launch((COMPILED,), blocks=1, seconds=120.0).arms
    finally:
        runner.close()

    assert [isinstance(arm, ArmLaunch) and arm.reproduced for arm in first] == [True, True]
    assert isinstance(after, Failed)
    assert after.kind == "not_reproducible"
