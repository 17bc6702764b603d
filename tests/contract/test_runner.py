from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from autotuner.measurement.outcome import (
    FAILURE_KINDS,
    ArmBlocks,
    ArmLaunch,
    ColdStart,
    Failed,
    Measured,
    measured_from_json,
    measured_to_json,
)
from autotuner.measurement.recorded import Recorded, ReplayTable
from autotuner.measurement.replay import ReplayRunner, TimingNoise
from autotuner.measurement.runner import Runner
from tests.support.faulty_children import SEGFAULT, children_that
from tests.support.process_runners import EAGER, process_runner
from toto_core.settings import RuntimeSettings

CACHES = "autotune-contract-"
"""What a folder with compile caches, which no runner removes, is called."""
FAILS = 7
"""A recompile limit that no other settings here have: children with it crash."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One implementation: how to open it, the reference, settings that work, and settings that fail."""

    open: Callable[[], Runner]
    reference: RuntimeSettings
    working: RuntimeSettings
    failing: RuntimeSettings
    shapes: int
    seconds: float
    compiles: bool = True


def processes() -> Case:
    """Child processes; working settings are eager, so that the suite does not wait for a compiler."""
    return Case(
        open=lambda: process_runner(Path(tempfile.mkdtemp(prefix=CACHES))),
        reference=EAGER,
        working=EAGER.replace(precision="bf16"),
        failing=EAGER.replace(compile_mode="default", recompile_limit=FAILS),
        shapes=1,
        seconds=90.0,
        compiles=False,
    )


def replay(noise: TimingNoise) -> Case:
    reference = RuntimeSettings()
    working = RuntimeSettings(compile_mode="default")
    entries = {
        reference: Recorded(latency_ms=(100.0, 20.0), sigma_ms=(3.0, 1.0), cost_s=1.0),
        working: Recorded(latency_ms=(50.0, 10.0), sigma_ms=(3.0, 1.0), cost_s=1.0),
    }
    return Case(
        open=lambda: ReplayRunner(ReplayTable(entries=entries, reference=reference), noise),
        reference=reference,
        working=working,
        failing=RuntimeSettings(compile_mode="max-autotune"),
        shapes=2,
        seconds=60.0,
    )


CASES: dict[str, Callable[[], Case]] = {
    "replay": lambda: replay(TimingNoise(seed=1)),
    "replay without noise": lambda: replay(TimingNoise.none()),
    "processes": processes,
}


@pytest.fixture(params=list(CASES), scope="module")
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]()


@pytest.fixture(scope="module")
def runner(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        site = tmp_path_factory.mktemp("site")
        fails = f"settings.recompile_limit == {FAILS}"
        children_that(SEGFAULT, folder=site, monkeypatch=monkeypatch, when=fails)
        opened = case.open()
        yield opened
        opened.close()


def measure(runner: Runner, case: Case, settings: RuntimeSettings) -> Measured:
    outcome = runner.measure(settings, seconds=case.seconds)
    assert isinstance(outcome, Measured), outcome
    return outcome


@pytest.fixture(scope="module")
def worked(runner: Runner, case: Case) -> Measured:
    """A trial of settings that work; several tests look at one, because it takes ten seconds with processes."""
    return measure(runner, case, case.working)


def check_blocks(shapes: ArmBlocks, case: Case, blocks: int = 1) -> None:
    assert len(shapes) == case.shapes
    assert len({len(shape) for shape in shapes}) == 1
    assert len(shapes[0]) >= blocks
    calls = [call for shape in shapes for block in shape for call in block]
    assert calls
    assert all(isinstance(call, float) and 0 < call < math.inf for call in calls)


def test_a_trial_times_every_shape_beside_the_reference(worked: Measured, case: Case) -> None:
    assert len(worked.timings) == len(worked.reference_timings) == case.shapes
    for timing in (*worked.timings, *worked.reference_timings):
        assert 0 < timing.p50_ms <= timing.p95_ms < math.inf
        assert timing.sigma_ms >= 0
        assert timing.calls > 0
    assert 0 < worked.ratio.low <= worked.ratio.high < math.inf


def test_raw_blocks_of_both_arms_pair_up(worked: Measured, case: Case) -> None:
    check_blocks(worked.blocks, case)
    check_blocks(worked.reference_blocks, case, len(worked.blocks[0]))


def test_the_reference_can_be_measured_like_any_other(runner: Runner, case: Case) -> None:
    outcome = measure(runner, case, case.reference)

    assert not outcome.report.requested
    assert outcome.accuracy.drift == 0.0


def test_a_compiled_trial_reports_that_it_compiled(worked: Measured, case: Case) -> None:
    assert worked.report.really_compiled is case.compiles


def test_an_outcome_survives_json(worked: Measured) -> None:
    assert measured_from_json(measured_to_json(worked)) == worked


def test_a_failure_is_an_outcome_and_the_runner_goes_on(runner: Runner, case: Case) -> None:
    outcome = runner.measure(case.failing, seconds=case.seconds)

    assert isinstance(outcome, Failed)
    assert outcome.kind in FAILURE_KINDS
    assert outcome.detail
    measure(runner, case, case.working)


def test_too_little_time_is_a_timeout(runner: Runner, case: Case) -> None:
    outcome = runner.measure(case.working, seconds=0.001)

    assert isinstance(outcome, Failed)
    assert outcome.kind == "timeout"


def test_a_build_gives_every_configuration_its_start_or_its_failure(runner: Runner, case: Case) -> None:
    built = runner.build((case.working, case.failing), seconds=case.seconds)

    assert runner.slots >= 1
    assert isinstance(built[case.failing], Failed)
    start = built[case.working]
    assert isinstance(start, ColdStart)
    assert start.ms >= 0
    apart = runner.build((case.working,), seconds=case.seconds, apart=True)[case.working]
    assert isinstance(apart, ColdStart)
    assert apart.beside == 0


def test_a_launch_gives_every_arm_its_blocks_in_the_order_asked(runner: Runner, case: Case) -> None:
    arms = (case.working, case.reference)
    launch = runner.launch(arms, blocks=3, seconds=case.seconds)

    assert launch.settings == arms
    for settings in arms:
        arm = launch.arm(settings)
        assert isinstance(arm, ArmLaunch), arm
        assert arm.start_ms >= 0
        check_blocks(arm.blocks, case, blocks=3)


def test_an_arm_that_fails_leaves_the_others_their_figures(runner: Runner, case: Case) -> None:
    launch = runner.launch((case.failing, case.reference), blocks=2, seconds=case.seconds)

    assert isinstance(launch.arm(case.failing), Failed)
    assert isinstance(launch.arm(case.reference), ArmLaunch)


def test_a_launch_without_time_fails_every_arm(runner: Runner, case: Case) -> None:
    launch = runner.launch((case.working, case.reference), blocks=2, seconds=0.001)

    assert all(isinstance(arm, Failed) and arm.kind == "timeout" for arm in launch.arms)


def test_closing_twice_is_safe(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    opened = case.open()
    opened.close()
    opened.close()

    assert all(left.name.startswith(CACHES) for left in tmp_path.iterdir())
