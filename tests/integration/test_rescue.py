"""A compiled call that fails in production: the caller gets eager's forecast, the tuner a note."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from autotuner import load_pipeline
from autotuner.figures import Figures
from autotuner.paths import spool_folder, store_location
from autotuner.serving import pipeline as serving_pipeline
from autotuner.serving.telemetry import Telemetry
from autotuner.store import Promotion, Store
from autotuner.workload import RequestShape, Workload
from tests.support.simulated_world import World, ticker
from tests.support.tiny_model import save_tiny_model
from toto_core.compiling.calls import Calls
from toto_core.compiling.packages import Run
from toto_core.forecast import Forecast
from toto_core.pipeline import NoForecastError, TotoPipeline
from toto_core.requests import RequestError
from toto_core.rescue import DeviceLostError, RescuedCalls
from toto_core.settings import RuntimeSettings

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
DEFAULT = RuntimeSettings(compile_mode="default")
PRICES = 100 + np.sin(np.arange(64) / 5)
CALLS = 1_000


def raises(_: list[Tensor]) -> list[Tensor]:
    raise ValueError("guard failed")


def loses_the_device(_: list[Tensor]) -> list[Tensor]:
    raise RuntimeError("CUDA error: an illegal memory access was encountered")


def not_finite(run: Run) -> Run:
    return lambda tensors: [torch.full_like(each, torch.nan) for each in run(tensors)]


def replaced_by_zero(run: Run) -> Run:
    return lambda tensors: [torch.zeros_like(each) for each in run(tensors)]


FAULTS: dict[str, Callable[[Run], Run]] = {
    "an exception": lambda _: raises,
    "a lost device": lambda _: loses_the_device,
    "NaN": not_finite,
    "NaN inside the graph, which the engine makes 0": replaced_by_zero,
}
every_fault = pytest.mark.parametrize("fault", FAULTS)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def variables(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TOTO_DISABLE_COMPILE", "TOTO_COMPILE_MODE", "AUTOTUNE_DB", "TORCHINDUCTOR_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AUTOTUNE_CACHE", str(cache / "cache"))
    monkeypatch.setattr(serving_pipeline, "_failed", {})  # a process remembers what failed in it


@pytest.fixture
def pipeline(model: str, tmp_path: Path) -> Iterator[TotoPipeline]:
    """Compiled by the first test for all: what one process compiles the next one finds."""
    found = load_pipeline(
        "AMD", workload=workload(model), settings=DEFAULT, db=str(tmp_path / "none.db"), telemetry=False
    )
    assert isinstance(found, TotoPipeline)
    found.on_rescue = None
    yield found
    found.unload()


def workload(model: str) -> Workload:
    shape = RequestShape(context_length=64, prediction_length=4, num_samples=8)
    return Workload(model=model, shapes=(shape,))


def break_it(pipeline: TotoPipeline, fault: str) -> None:
    """From now on every library that is loaded fails in this way."""
    ahead = pipeline._open().calls._ahead
    assert ahead is not None
    for key, run in ahead._loaded.items():
        assert run is not None
        ahead._loaded[key] = FAULTS[fault](run)


def packages_of(pipeline: TotoPipeline) -> Path:
    """Where what it compiles is kept."""
    ahead = pipeline._open().calls._ahead
    assert ahead is not None
    assert ahead._store.folder is not None
    return ahead._store.folder


def eager(model: str) -> TotoPipeline:
    return TotoPipeline.from_pretrained(model, settings=RuntimeSettings())


@every_fault
def test_of_a_thousand_calls_with_a_fault_at_random_every_one_is_a_forecast(
    fault: str, pipeline: TotoPipeline, model: str
) -> None:
    broken_at = random.Random(fault).randrange(10, CALLS - 10)
    heard: list[str] = []
    pipeline.on_rescue = heard.append
    forecasts: list[Forecast] = []
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for number in range(CALLS):
            if number == broken_at:
                break_it(pipeline, fault)
            forecasts.append(pipeline.predict(PRICES, 4, 8, seed=number))

    plain = eager(model)
    for number in (broken_at - 1, broken_at, broken_at + 1, CALLS - 1):
        expected = plain.predict(PRICES, 4, 8, seed=number).mean
        torch.testing.assert_close(forecasts[number].mean, expected, rtol=1e-5, atol=0.0)
    assert all(bool(torch.isfinite(forecast.mean).all()) for forecast in forecasts)
    assert [str(each.message).split("(")[0] for each in said] == ["a compiled call failed "]
    assert len(heard) == 1
    assert pipeline.rescued == heard[0]
    assert pipeline.last_run_metadata["rescued"] is True
    assert pipeline.compiled is False
    assert pipeline.compile_report.eager_calls == CALLS - broken_at


@pytest.mark.filterwarnings("ignore:a compiled call failed:RuntimeWarning")
def test_a_new_shape_whose_library_cannot_be_kept_is_rescued(pipeline: TotoPipeline, model: str) -> None:
    packages = packages_of(pipeline)
    aside = packages.with_name("aside")
    packages.rename(aside)
    try:
        packages.write_text("no folder any more")
        forecast = pipeline.predict(np.tile(PRICES, 2), 4, 8)
    finally:
        packages.unlink()
        aside.rename(packages)

    assert pipeline.rescued is not None
    expected = eager(model).predict(np.tile(PRICES, 2), 4, 8).mean
    torch.testing.assert_close(forecast.mean, expected, rtol=1e-6, atol=0.0)


def test_a_library_that_is_deleted_goes_on_in_the_process_that_has_loaded_it(
    pipeline: TotoPipeline,
) -> None:
    before = pipeline.predict(PRICES, 4, 8).mean
    libraries = {path: path.read_bytes() for path in packages_of(pipeline).glob("*.so")}
    assert libraries
    try:
        for path in libraries:
            path.unlink()
        assert torch.equal(pipeline.predict(PRICES, 4, 8).mean, before)
        assert pipeline.rescued is None
    finally:
        for path, content in libraries.items():
            path.write_bytes(content)
            path.chmod(0o500)


def test_what_is_wrong_with_a_request_is_not_rescued(pipeline: TotoPipeline) -> None:
    with pytest.raises(RequestError):
        pipeline.predict(PRICES[:3], 4, 8)

    assert pipeline.rescued is None


@pytest.mark.filterwarnings("ignore:a compiled call failed:RuntimeWarning")
def test_series_that_are_forecast_together_are_rescued_too(pipeline: TotoPipeline, model: str) -> None:
    break_it(pipeline, "an exception")

    found = pipeline.predict_many({"A": PRICES, "B": PRICES * 2}, 4, 8)

    for name, scale in (("A", 1), ("B", 2)):
        expected = eager(model).predict(PRICES * scale, 4, 8).mean[0]
        torch.testing.assert_close(found[name].mean[0], expected, rtol=1e-6, atol=0.0)


def test_where_measuring_asks_for_it_a_failure_is_a_failure(pipeline: TotoPipeline) -> None:
    pipeline.rescues = False
    break_it(pipeline, "an exception")

    with pytest.raises(ValueError, match="guard failed"):
        pipeline.predict(PRICES, 4, 8)


def rescued_calls(model: str) -> RescuedCalls[Calls]:
    pipeline = eager(model)
    assert pipeline.model is not None
    return RescuedCalls(pipeline.model, DEFAULT)


def test_a_device_that_fails_eager_mode_too_is_lost_and_said_to_be(model: str) -> None:
    calls = rescued_calls(model)

    def compute(_: object) -> Tensor:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    with pytest.raises(DeviceLostError, match="only starting it anew helps"):
        calls.run(compute)
    assert calls.rescued is None


def test_an_error_that_eager_mode_has_too_is_not_the_settings_fault(model: str) -> None:
    calls = rescued_calls(model)

    def compute(_: object) -> Tensor:
        raise ValueError("no weights")

    with pytest.raises(ValueError, match="no weights"):
        calls.run(compute)
    assert calls.rescued is None


def test_memory_that_ran_out_is_not_asked_for_again(model: str) -> None:
    calls = rescued_calls(model)
    tries: list[int] = []

    def compute(_: object) -> Tensor:
        tries.append(1)
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        calls.run(compute)
    assert len(tries) == 1


def test_extremes_of_the_model_itself_are_looked_at_once_for_every_new_number(model: str) -> None:
    calls, eager_runs = rescued_calls(model), 0

    def zeros(count: int) -> Callable[[object], Tensor]:
        def compute(used: object) -> Tensor:
            nonlocal eager_runs
            eager_runs += used is not calls.calls
            paths = torch.ones(1000)
            paths[:count] = 0.0
            return paths

        return compute

    for count in (1, 1, 1, 3, 2, 3):
        calls.run(zeros(count))

    assert calls.rescued is None
    assert eager_runs == 2


def test_eager_settings_have_nothing_to_be_rescued_from(model: str) -> None:
    pipeline = eager(model)
    with torch.no_grad():
        next(iter(pipeline._open().calls._decoder.parameters())).fill_(torch.nan)

    with pytest.raises(NoForecastError):
        pipeline.predict(PRICES, 4, 8)
    assert pipeline.rescued is None


@pytest.mark.filterwarnings("ignore:a compiled call failed:RuntimeWarning")
def test_the_daemon_takes_a_rescued_promotion_back_once_its_windows_say_so_too(
    model: str, tmp_path: Path
) -> None:
    db = str(tmp_path / "autotune.db")
    with Store(db) as store:
        world = World(store=store, data=tmp_path, model=Path(model), clock=datetime.now(UTC))
        store.promote(
            Promotion(
                symbol="AMD",
                profile="production",
                workload=workload(model),
                environment=world.environment(),
                settings=DEFAULT,
                verdict="first",
                reason="faster",
                figures=Figures(),
                promoted_at=world.clock,
            )
        )
        store.publish()
        pipeline = load_pipeline("AMD", db=db)
        assert isinstance(pipeline, TotoPipeline)
        assert pipeline.settings == DEFAULT
        count = getattr(pipeline.on_call, "__self__", None)
        assert isinstance(count, Telemetry)
        break_it(pipeline, "NaN")

        pipeline.predict(PRICES, 4, 8)

        assert pipeline.last_run_metadata["settings_source"].startswith("rescued: ")
        (note,) = spool_folder(store_location(db)).glob("*.json")
        assert note.name.startswith("quarantine-")
        world.clock = datetime.now(UTC)
        assert ticker(world, budget=0.0).tick().rolled_back == ()
        ((_, _, said),) = [line for line in world.log if line[1] == "unproven"]
        assert (said["symbol"], "one process alone says so" in said["reason"]) == ("AMD", True)

        pipeline.predict(PRICES, 4, 8)
        count.flush()  # as it does once a minute

        world.clock = datetime.now(UTC)
        assert ticker(world, budget=0.0).tick().rolled_back == ("AMD",)
        assert store.active("AMD") is None
    again = load_pipeline("AMD", db=db, telemetry=False)
    assert not again.settings.compiled
