from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from autotuner.measurement.child.handle import Child
from autotuner.measurement.outcome import Failed, Measured
from autotuner.measurement.process_runner import ProcessRunner
from autotuner.search.profiles import Limits, profile
from autotuner.search.scoring import judge
from autotuner.workload import RequestShape, Workload
from tests.support.families import Family
from tests.support.faulty_children import EAT_MEMORY, HANG, SEGFAULT, SHIFTED_FORECAST, children_that
from tests.support.process_runners import EAGER, process_runner
from tests.support.tiny_model import save_tiny_model
from toto_core.settings import RuntimeSettings

pytestmark = pytest.mark.slow

COMPILED = RuntimeSettings(compile_mode="default", num_threads=1)
BF16 = RuntimeSettings(precision="bf16", num_threads=1)


def _measure(runner: ProcessRunner, settings: RuntimeSettings, seconds: float = 60.0) -> Measured | Failed:
    try:
        return runner.measure(settings, seconds=seconds)
    finally:
        runner.close()


def test_a_trial_that_hangs_is_a_timeout_and_leaves_no_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    family = Family(monkeypatch)
    children_that(HANG, folder=tmp_path / "site", monkeypatch=monkeypatch)
    outcome = _measure(process_runner(tmp_path), COMPILED, seconds=12.0)
    assert isinstance(outcome, Failed)
    assert outcome.kind == "timeout"
    assert family.left(within=5.0) == []


@pytest.mark.exhaustive  # `make faults` does it by the dozen, beside other ways to hang
def test_a_child_of_a_trial_in_a_session_of_its_own_does_not_outlive_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    family = Family(monkeypatch)
    apart = f"import os; os.fork() or os.setsid(); {HANG}"
    children_that(apart, folder=tmp_path / "site", monkeypatch=monkeypatch)
    runner = process_runner(tmp_path)
    try:
        assert isinstance(runner.measure(EAGER, seconds=60.0), Measured)  # the reference runs from here on
        outcome = runner.measure(COMPILED, seconds=15.0)
    finally:
        runner.close()
    assert isinstance(outcome, Failed)
    assert outcome.kind == "timeout"
    _, alive = psutil.wait_procs(family.anywhere(), timeout=5.0)
    for each in alive:
        each.kill()
    assert alive == []


@pytest.mark.exhaustive  # `make faults` does it by the dozen
def test_of_what_a_child_says_without_end_only_the_last_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flood = (
        "import os, time; block = b'x' * (1 << 20); "
        "[(os.write(1, block), time.sleep(0.002)) for _ in range(1 << 10)]; time.sleep(1); "
        "os.write(1, b'\\nthe end'); os._exit(3)"
    )
    children_that(flood, folder=tmp_path / "site", monkeypatch=monkeypatch)
    runner = process_runner(tmp_path)
    kept: list[int] = []
    closed = Child.close

    def close(child: Child) -> None:
        if child.settings == COMPILED and not child._log.closed:
            kept.append(os.fstat(child._log.fileno()).st_size)
        closed(child)

    monkeypatch.setattr(Child, "close", close)
    outcome = _measure(runner, COMPILED)
    assert isinstance(outcome, Failed)
    assert "the end" in outcome.detail
    assert 0 < max(kept) < 256 << 20


def test_a_trial_that_segfaults_names_the_signal_and_the_next_one_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    children_that(SEGFAULT, folder=tmp_path / "site", monkeypatch=monkeypatch)
    runner = process_runner(tmp_path)
    try:
        crashed = runner.measure(COMPILED, seconds=60.0)
        after = runner.measure(BF16, seconds=60.0)
    finally:
        runner.close()
    assert isinstance(crashed, Failed)
    assert crashed.kind == "crashed"
    assert "SIGSEGV" in crashed.detail
    assert isinstance(after, Measured)


def test_a_trial_that_eats_memory_is_refused_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    children_that(EAT_MEMORY, folder=tmp_path / "site", monkeypatch=monkeypatch)
    outcome = _measure(process_runner(tmp_path, memory_bytes=1 << 30), COMPILED)
    assert isinstance(outcome, Failed)
    assert outcome.kind == "out_of_memory"


@pytest.mark.exhaustive  # the suite reaches the limit in production, and judges a report of it
def test_a_trial_that_runs_eagerly_past_its_recompile_limit_is_no_measurement(tmp_path: Path) -> None:
    shapes = tuple(
        RequestShape(context_length=length, prediction_length=4, num_samples=4) for length in (64, 96)
    )
    workload = Workload(model=str(save_tiny_model(tmp_path / "model")), shapes=shapes)
    limited = COMPILED.replace(compile_scope="layer", recompile_limit=1)
    outcome = _measure(process_runner(tmp_path, workload=workload, blocks=2), limited, seconds=120.0)
    assert isinstance(outcome, Failed)
    assert outcome.kind == "not_compiled"
    assert "recompile limit" in outcome.detail


def test_without_a_compiler_compiled_trials_fail_with_the_cause_and_eager_ones_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    monkeypatch.delenv("CXX", raising=False)
    shape = RequestShape(context_length=64, prediction_length=4, num_samples=4)
    workload = Workload(model=save_tiny_model(tmp_path / "model"), shapes=(shape,))
    runner = process_runner(tmp_path, workload=workload)
    try:
        compiled = runner.measure(COMPILED, seconds=90.0)
        eager = runner.measure(BF16, seconds=60.0)
    finally:
        runner.close()
    assert isinstance(compiled, Failed)
    assert compiled.kind == "compile_error"
    assert "compiler" in compiled.detail.lower()
    assert isinstance(eager, Measured)


def test_a_forecast_wrong_by_one_percent_of_price_is_far_beyond_every_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bf16 = "settings.precision == 'bf16'"
    children_that(SHIFTED_FORECAST, folder=tmp_path / "site", monkeypatch=monkeypatch, when=bf16)
    outcome = _measure(process_runner(tmp_path), BF16)
    assert isinstance(outcome, Measured)
    assert not judge(outcome, Workload(), profile("production"), Limits()).feasible
    assert outcome.accuracy.quantile_shift > 2 * profile("throughput").quantile_limit


_PARENT = """
import sys, pathlib
from autotuner.search.profiles import Limits, profile
from autotuner.workload import RequestShape, Workload
from tests.support.process_runners import process_runner, EAGER
from tests.support.outcomes import violations
runner = process_runner(pathlib.Path(sys.argv[1]))
runner.measure(EAGER.replace(precision="bf16"), seconds=120)
print("measured", flush=True)
"""


@pytest.mark.parametrize("after_seconds", [0.5, 4.0])
def test_a_parent_killed_at_any_moment_leaves_no_process(tmp_path: Path, after_seconds: float) -> None:
    root = Path(__file__).parents[2]
    parent = subprocess.Popen([sys.executable, "-c", _PARENT, str(tmp_path)], cwd=root)
    watched = psutil.Process(parent.pid)
    family: set[psutil.Process] = set()
    deadline = time.monotonic() + 60.0
    while not family and time.monotonic() < deadline:
        family.update(watched.children(recursive=True))
        time.sleep(0.02)
    seen_from = time.monotonic()
    while time.monotonic() - seen_from < after_seconds:
        family.update(watched.children(recursive=True))
        time.sleep(0.05)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    assert family
    _, alive = psutil.wait_procs(family, timeout=10.0)
    assert alive == []


def test_the_reference_measured_against_itself_is_a_plain_measurement(tmp_path: Path) -> None:
    outcome = _measure(process_runner(tmp_path), EAGER)
    assert isinstance(outcome, Measured)
    assert outcome.accuracy.drift == 0.0
    assert outcome.accuracy.windows == 16
    assert outcome.ratio.low <= outcome.ratio.estimate <= outcome.ratio.high
    assert outcome.report.requested is False


def test_a_trial_that_cannot_beat_what_is_known_is_timed_no_longer_than_it_takes_to_know(
    tmp_path: Path,
) -> None:
    beyond_reach = 1e9  # at the first interim analysis too, and however noisy the machine is
    runner = process_runner(tmp_path, blocks=24)
    try:
        to_the_end = runner.measure(EAGER, seconds=60.0, beat=0.01)
        hopeless = runner.measure(EAGER, seconds=60.0, beat=beyond_reach)
    finally:
        runner.close()
    assert isinstance(to_the_end, Measured)
    assert isinstance(hopeless, Measured)
    assert len(hopeless.blocks[0]) == 8
    assert hopeless.ratio.high < beyond_reach
    assert hopeless.accuracy.windows == to_the_end.accuracy.windows
