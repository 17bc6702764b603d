"""However measuring ends, its runner is closed first and its device is free afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from autotuner.device_lock import measure_alone
from autotuner.errors import AutotuneError
from autotuner.measurement.outcome import ColdStart, Failed, Launch, Outcome
from autotuner.search.space import SearchSpace
from autotuner.store import Store
from autotuner.tuning.measuring import MeasuringPlan, measuring
from toto_core.settings import RuntimeSettings

DEVICE = "cpu"
EAGER = RuntimeSettings()


class RunnerOnADevice:
    """A runner that answers nothing and notes whether the device was taken when it was closed."""

    slots = 1

    def __init__(self, taken: Callable[[], bool]) -> None:
        self.taken = taken
        self.taken_when_closed: list[bool] = []

    def measure(
        self, settings: RuntimeSettings, *, seconds: float, beat: float | None = None, again: bool = False
    ) -> Outcome:
        return Failed(kind="crashed")

    def build(
        self, wanted: Sequence[RuntimeSettings], *, seconds: float, apart: bool = False
    ) -> Mapping[RuntimeSettings, ColdStart | Failed]:
        raise NotImplementedError

    def launch(self, arms: Sequence[RuntimeSettings], *, blocks: int, seconds: float) -> Launch:
        raise NotImplementedError

    def close(self) -> None:
        self.taken_when_closed.append(self.taken())


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    monkeypatch.setattr("autotuner.device_lock.data_folder", lambda: tmp_path)  # a lock of its own
    with Store(str(tmp_path / "autotune.db")) as opened:
        yield opened


def taken(store: Store) -> bool:
    try:
        with measure_alone(store.records, DEVICE, seconds=0.0, say=lambda _: None):
            return False
    except AutotuneError:
        return True


@pytest.fixture
def runner(store: Store) -> RunnerOnADevice:
    return RunnerOnADevice(lambda: taken(store))


@pytest.fixture
def plan(runner: RunnerOnADevice) -> MeasuringPlan:
    return MeasuringPlan(space=SearchSpace.of([EAGER]), make_runner=lambda _: runner, device=DEVICE)


def test_the_device_is_taken_until_the_runner_is_closed(
    store: Store, runner: RunnerOnADevice, plan: MeasuringPlan
) -> None:
    with measuring(plan, store, seconds=5.0, say=lambda _: None) as under_way:
        assert under_way.runner is runner
        assert taken(store)
        assert not runner.taken_when_closed
        under_way.check()
    assert runner.taken_when_closed == [True]
    assert not taken(store)


@pytest.mark.parametrize("error", [RuntimeError("broken"), KeyboardInterrupt(), SystemExit(1)])
def test_work_that_raises_or_is_interrupted_leaves_no_process_and_no_lock(
    store: Store, runner: RunnerOnADevice, plan: MeasuringPlan, error: BaseException
) -> None:
    with pytest.raises(type(error)), measuring(plan, store, seconds=5.0, say=lambda _: None):
        raise error
    assert runner.taken_when_closed == [True]
    assert not taken(store)


def test_a_runner_that_cannot_be_made_or_closed_leaves_no_lock(store: Store, plan: MeasuringPlan) -> None:
    def fail(*_: object) -> Any:
        raise OSError("no space left on device")

    for make in (fail, lambda _: RunnerOnADevice(fail)):
        broken = replace(plan, make_runner=make)
        with pytest.raises(OSError, match="no space"), measuring(broken, store, seconds=5.0, say=print):
            pass
        assert not taken(store)


def test_a_device_that_is_taken_makes_no_runner(
    store: Store, runner: RunnerOnADevice, plan: MeasuringPlan
) -> None:
    said: list[str] = []
    with (
        measuring(plan, store, seconds=5.0, say=said.append),
        pytest.raises(AutotuneError, match="has been measuring on cpu"),
        measuring(plan, store, seconds=0.0, say=said.append),
    ):
        raise AssertionError("two measure at once")
    assert said == ["waiting: another autotune run is measuring on cpu"]
    assert len(runner.taken_when_closed) == 1


def test_recorded_answers_need_no_device(store: Store, runner: RunnerOnADevice, plan: MeasuringPlan) -> None:
    with (
        measuring(plan, store, seconds=5.0, say=lambda _: None),
        measuring(replace(plan, device=None), store, seconds=0.0, say=lambda _: None) as replayed,
    ):
        replayed.check()
    assert len(runner.taken_when_closed) == 2


@pytest.mark.parametrize("quiet", [False, True])
def test_the_runner_speaks_to_who_listens_to_its_steps(
    store: Store, runner: RunnerOnADevice, plan: MeasuringPlan, quiet: bool
) -> None:
    said: list[str] = []
    steps: list[str] = []

    def make(say: Callable[[str], None]) -> RunnerOnADevice:
        say("starting")
        return runner

    speaking = replace(plan, make_runner=make)
    with measuring(speaking, store, seconds=5.0, say=said.append, say_steps=steps.append if quiet else None):
        pass
    assert (said, steps) == (([], ["starting"]) if quiet else (["starting"], []))
