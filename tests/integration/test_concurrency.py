"""A workload of several processes at once: every timed call is beside those of the others."""

from __future__ import annotations

from pathlib import Path

import pytest

from autotuner.measurement.child.copies import Copies
from autotuner.measurement.child.handle import Child, ChildError
from autotuner.measurement.outcome import ArmLaunch, Failed, Measured
from autotuner.workload import RequestShape, Workload
from tests.support.families import Family
from tests.support.faulty_children import SEGFAULT, children_that
from tests.support.process_runners import EAGER, process_runner
from tests.support.tiny_model import save_tiny_model

BF16 = EAGER.replace(precision="bf16")
SHAPE = RequestShape(context_length=64, prediction_length=4, num_samples=4)
CALLS_OF_A_COPY = 4


def crowd(folder: Path, concurrency: int) -> Workload:
    return Workload(model=save_tiny_model(folder / "model"), shapes=(SHAPE,), concurrency=concurrency)


class Noting:
    """A child that notes what it is asked, and may fail."""

    def __init__(self, name: str, calls: list[str], *, fails: bool = False) -> None:
        self.name, self.calls, self.fails = name, calls, fails

    def wait_started(self, deadline: float) -> None:
        self.calls.append(f"{self.name} started")

    def begin_block(self, shape: int, *, one_more: bool = False) -> None:
        self.calls.append(f"{self.name} begins{' one more' if one_more else ''}")

    def close(self) -> None:
        self.calls.append(f"{self.name} closed")

    def end_block(self, deadline: float) -> tuple[float, ...]:
        self.calls.append(f"{self.name} ends")
        if self.fails:
            raise ChildError(Failed(kind="crashed"))
        return (1.0, 2.0, 3.0)


def copies(calls: list[str], count: int, *, fails: bool = False) -> Copies:
    names = iter("abc")

    def begin() -> Child:
        name = next(names)
        return Noting(name, calls, fails=fails and name == "b")  # type: ignore[return-value]

    return Copies(begin, count)


def test_all_copies_begin_a_block_before_any_is_waited_for() -> None:
    calls: list[str] = []
    arm = copies(calls, 2)
    arm.wait_started(0.0)

    assert arm.block(0, 0.0) == (1.0, 2.0, 1.0, 2.0)  # without each one's last, which may have been alone
    assert calls == [
        *("a started", "b started"),
        *("a begins one more", "b begins one more", "a ends", "b ends"),
    ]


def test_a_single_process_gives_every_call_of_its_block() -> None:
    calls: list[str] = []
    arm = copies(calls, 1)
    arm.wait_started(0.0)

    assert arm.block(0, 0.0) == (1.0, 2.0, 3.0)
    assert calls == ["a started", "a begins", "a ends"]


def test_a_copy_that_fails_ends_the_whole_arm() -> None:
    calls: list[str] = []
    arm = copies(calls, 3, fails=True)
    arm.wait_started(0.0)
    with pytest.raises(ChildError):
        arm.block(0, 0.0)
    assert calls[-3:] == ["a closed", "b closed", "c closed"]  # none computes beside other arms


def test_a_copy_that_cannot_begin_leaves_none_of_the_others() -> None:
    calls: list[str] = []
    arm = copies(calls, 4)  # there are names for three
    with pytest.raises(StopIteration):
        arm.wait_started(0.0)
    assert calls[-3:] == ["a closed", "b closed", "c closed"]


def test_a_trial_times_the_crowd_and_leaves_no_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    family = Family(monkeypatch)
    runner = process_runner(tmp_path, workload=crowd(tmp_path, 2), blocks=4)
    try:
        trial = runner.measure(BF16, seconds=60.0)
    finally:
        runner.close()

    assert isinstance(trial, Measured), trial
    assert {len(block) for block in trial.blocks[0]} == {2 * CALLS_OF_A_COPY}
    assert trial.timings[0].calls == 2 * CALLS_OF_A_COPY * len(trial.blocks[0])
    assert family.left(within=5.0) == []


@pytest.mark.exhaustive  # the suite times a trial
def test_a_launch_times_the_crowd(tmp_path: Path) -> None:
    runner = process_runner(tmp_path, workload=crowd(tmp_path, 2), blocks=4)
    try:
        launch = runner.launch((EAGER, BF16), blocks=4, seconds=60.0)
    finally:
        runner.close()
    for arm in launch.arms:
        assert isinstance(arm, ArmLaunch)
        assert {len(block) for block in arm.blocks[0]} == {2 * CALLS_OF_A_COPY}


@pytest.mark.exhaustive  # the suite ends copies whose fellow fails
def test_a_crowd_that_fails_is_an_outcome_and_leaves_no_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    family = Family(monkeypatch)
    children_that(
        SEGFAULT, folder=tmp_path / "site", monkeypatch=monkeypatch, when="settings.precision == 'bf16'"
    )
    runner = process_runner(tmp_path, workload=crowd(tmp_path, 2), blocks=2)
    try:
        outcome = runner.measure(BF16, seconds=60.0)
    finally:
        runner.close()
    assert isinstance(outcome, Failed)
    assert "SIGSEGV" in outcome.detail
    assert family.left(within=5.0) == []
