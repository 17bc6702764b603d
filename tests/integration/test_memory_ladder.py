"""Running out of memory: what is tried instead, what stays the same, and who is told."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from autotuner.daemon.intake import take_in
from autotuner.environment import current_environment
from autotuner.measurement.child.main import classify
from autotuner.serving.spool import Labels
from autotuner.serving.telemetry import Telemetry
from autotuner.store import Store, Subject
from autotuner.tuning.fitted import most_together
from autotuner.workload import RequestShape, Workload
from toto_core import TotoPipeline, memory_ladder
from toto_core.compile_report import CompileReport
from toto_core.device import ran_out_of_memory
from toto_core.memory_ladder import ForecastMemoryError
from toto_core.requests import RequestError

PRICES = 100.0 + torch.sin(torch.arange(96.0) / 5.0)
ONE_PATCH, THREE_PATCHES = 8, 70
aten = torch.ops.aten
STEPS = {aten.mm.default, aten.addmm.default}
"""Matrix products: of further patches these grow with the samples that are decoded together."""
SAMPLING = {aten.gather.default}
"""These grow with the samples of a patch."""


class SmallMemory(TorchDispatchMode):  # type: ignore[no-untyped-call] # torch leaves it untyped
    """An allocator that fails above a number of elements; ``failures`` counts how often it did."""

    def __init__(self, operators: set[Any], most: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # as above
        self.operators, self.most, self.failures = operators, most, 0

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in self.operators and result.numel() > self.most:
            self.failures += 1
            raise torch.OutOfMemoryError(f"out of memory: tried to allocate {result.numel()} elements")
        return result


@pytest.fixture(autouse=True)
def a_new_process() -> Iterator[None]:
    memory_ladder.forget()
    yield
    memory_ladder.forget()


@pytest.fixture(scope="module")
def mini() -> TotoPipeline:
    return TotoPipeline.from_pretrained("toto-mini")


def samples_of(pipeline: TotoPipeline, steps: int, samples: int, **keywords: Any) -> torch.Tensor:
    found = pipeline.predict(PRICES, steps, samples, seed=3, **keywords).samples
    assert found is not None
    return found


def largest_product(pipeline: TotoPipeline, together: int) -> int:
    """Elements of the largest matrix product with which so many samples are decoded together."""
    for exponent in range(8, 26):
        memory = SmallMemory(STEPS, 1 << exponent)
        with memory:
            try:
                samples_of(pipeline, THREE_PATCHES, together, max_oom_retries=0)
            except ForecastMemoryError:
                continue
        return 1 << exponent
    raise AssertionError("no size fits")


def test_portions_are_halved_first_and_the_forecast_stays_the_same(mini: TotoPipeline) -> None:
    whole = samples_of(mini, THREE_PATCHES, 128)
    enough_for_32 = largest_product(mini, 32)
    with (
        SmallMemory(STEPS, enough_for_32) as memory,
        pytest.warns(RuntimeWarning, match="out of memory: this process"),
    ):
        fitted = samples_of(mini, THREE_PATCHES, 128)
    assert memory.failures == 2
    torch.testing.assert_close(fitted, whole, rtol=1e-3, atol=0.0)
    metadata = mini.last_run_metadata
    assert (metadata["num_samples_requested"], metadata["num_samples_used"]) == (128, 128)
    assert (metadata["samples_per_batch_requested"], metadata["samples_per_batch_used"]) == (128, 32)
    assert metadata["out_of_memory_retries"] == 2

    with SmallMemory(STEPS, enough_for_32) as memory:  # the next call starts where this one ended
        samples_of(mini, THREE_PATCHES, 128)
        assert memory.failures == 0
        assert mini.last_run_metadata["samples_per_batch_used"] == 32
        assert mini.last_run_metadata["out_of_memory_retries"] == 0
        another = TotoPipeline.from_pretrained("toto-mini")
        samples_of(another, THREE_PATCHES, 128)
        assert memory.failures == 0


def test_then_there_are_fewer_samples_and_those_that_remain_are_the_same(mini: TotoPipeline) -> None:
    whole = samples_of(mini, ONE_PATCH, 256)
    with (
        SmallMemory(SAMPLING, ONE_PATCH * 64),
        pytest.warns(RuntimeWarning, match=r"num_samples=64 \(asked 256\)"),
    ):
        fitted = samples_of(mini, ONE_PATCH, 256, min_num_samples=50)
    assert torch.equal(fitted, whole[..., :64])
    assert mini.last_run_metadata["num_samples_used"] == 64
    assert mini.last_run_metadata["samples_per_batch_used"] == 64
    again = samples_of(mini, ONE_PATCH, 256, min_num_samples=50)
    assert torch.equal(again, whole[..., :64])
    assert (
        samples_of(mini, ONE_PATCH, 256, min_num_samples=256).shape[-1] == 256
    )  # never fewer than is allowed


def test_at_the_bottom_there_is_one_error_that_names_the_last_sizes(mini: TotoPipeline) -> None:
    last = r"even with num_samples=128 and samples_per_batch=128 \(asked 256 and 256\)"
    with SmallMemory(SAMPLING, 1) as memory, pytest.raises(RuntimeError, match=last) as raised:
        samples_of(mini, ONE_PATCH, 256, min_num_samples=128)
    assert memory.failures == 2
    assert "\n" not in str(raised.value)
    assert isinstance(raised.value.__cause__, torch.OutOfMemoryError)
    with SmallMemory(SAMPLING, 1) as memory, pytest.raises(ForecastMemoryError):
        samples_of(mini, ONE_PATCH, 4096, max_oom_retries=3, min_num_samples=1)
    assert memory.failures == 4


def test_without_retries_nothing_smaller_is_tried_and_a_trial_sees_it_for_what_it_is(
    mini: TotoPipeline,
) -> None:
    with (
        SmallMemory(SAMPLING, 1) as memory,
        pytest.raises(ForecastMemoryError, match="num_samples=64") as raised,
    ):
        samples_of(mini, ONE_PATCH, 64, max_oom_retries=0, min_num_samples=1)
    assert memory.failures == 1
    assert classify(raised.value)[0] == "out_of_memory"


def test_many_series_go_down_the_same_ladder(mini: TotoPipeline) -> None:
    with SmallMemory(SAMPLING, ONE_PATCH * 256), pytest.warns(RuntimeWarning, match="num_samples=256"):
        forecasts = mini.predict_many({"A": PRICES, "B": PRICES + 5}, ONE_PATCH, 512)
    assert {forecast[0].shape for forecast in forecasts.values()} == {(256, ONE_PATCH)}
    assert mini.last_run_metadata["num_samples_used"] == 256


def test_other_failures_are_not_tried_again(mini: TotoPipeline) -> None:
    with pytest.raises(RequestError):
        mini.predict(PRICES, ONE_PATCH, 0)


def test_what_counts_as_out_of_memory() -> None:
    with pytest.raises(RuntimeError) as real:
        torch.empty(1 << 50)
    assert ran_out_of_memory(real.value)
    assert ran_out_of_memory(MemoryError())
    assert ran_out_of_memory(torch.cuda.OutOfMemoryError("CUDA out of memory"))
    assert not ran_out_of_memory(RuntimeError("shapes do not match"))
    assert not ran_out_of_memory(ValueError("DefaultCPUAllocator: can't allocate memory"))


def test_the_next_run_of_the_symbol_knows_what_production_had_memory_for(tmp_path: Path) -> None:
    shape = RequestShape(prediction_length=65, num_samples=256)
    workload, environment = Workload(shapes=(shape,)), current_environment()
    subject = Subject(
        symbol="AMD", workload=workload, environment=environment, series_digest="s", model_digest="m"
    )
    labels = Labels(
        symbol="AMD",
        settings_key="k",
        environment_fingerprint=environment.fingerprint,
        workload_signature=workload.signature,
    )
    telemetry = Telemetry(labels, tmp_path / "spool", window_seconds=3600, clock=lambda: datetime.now(UTC))
    for fitted in (None, 64, 32, None):
        telemetry.observe(1.0, (512, 65, 256), CompileReport(), fitted)
    telemetry.close()
    with Store(str(tmp_path / "store.db")) as store:
        assert most_together(store, subject) is None
        assert take_in(store.records, tmp_path / "spool").telemetry == 1
        assert most_together(store, subject) == 32
