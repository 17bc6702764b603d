"""A pipeline over any module: compiled in place, rescued, held, counted."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from autotuner.engines.module_pipeline import LEVELS, ModulePipeline
from toto_core.base_pipeline import NoForecastError, PipelineClosedError, PipelineForkedError
from toto_core.settings import RuntimeSettings

STEPS = 8
close = partial(torch.testing.assert_close, rtol=1e-5, atol=1e-4)
CONTEXT = np.linspace(90.0, 110.0, 32, dtype=np.float32)
COMPILED = RuntimeSettings(compile_mode="default", series_per_batch=2)


class Last(ModulePipeline):
    """The last price and a learned step from it."""

    def quantiles(self, contexts: Tensor, steps: int) -> Tensor:
        moved: Tensor = self.module(contexts[..., -4:])[..., None, :steps]
        levels = torch.tensor(LEVELS, device=contexts.device)[:, None] - 0.5
        last: Tensor = contexts[..., -1:][..., None]
        return last + moved + levels


def pipeline(settings: RuntimeSettings | None = None) -> Last:
    torch.manual_seed(0)
    return Last(nn.Linear(4, STEPS), settings or RuntimeSettings(), "cpu")


@pytest.fixture
def healthy() -> Iterator[Last]:
    """Compiled by its first call for two series; torch finds the graph of the first test's again."""
    made = pipeline(COMPILED)
    made.predict(CONTEXT, STEPS)
    yield made
    made.unload()


def test_compiled_forecasts_are_the_eager_ones_whatever_the_number_of_series(healthy: Last) -> None:
    for series in (1, 2, 3, 5):
        contexts = np.stack([CONTEXT + shift for shift in range(series)])[:, None]
        found, wanted = healthy.predict(contexts, STEPS), pipeline().predict(contexts, STEPS)
        assert found.quantiles.shape == (9, series, 1, STEPS)
        close(found.quantiles, wanted.quantiles)
    assert healthy.compile_report.graphs == 1
    assert healthy.last_run_metadata["torch_compile_success"]


def break_it(broken: Last, fault: str) -> None:
    """From now on what was compiled fails in this way."""

    def compiled(values: Tensor) -> Tensor:
        if fault == "raises":
            raise RuntimeError("a library that is broken")
        return torch.full((*values.shape[:-1], STEPS), float("nan"))

    broken.module._compiled_call_impl = compiled


@pytest.mark.parametrize("fault", ["raises", "not finite"])
def test_a_compiled_call_that_fails_is_answered_in_eager_mode_and_told_once(
    healthy: Last, fault: str
) -> None:
    told: list[str] = []
    break_it(healthy, fault)
    healthy.on_rescue = told.append
    with pytest.warns(RuntimeWarning, match="answered in eager mode"):
        found = healthy.predict(CONTEXT, STEPS)
    close(found.quantiles, pipeline().predict(CONTEXT, STEPS).quantiles)
    healthy.predict(CONTEXT, STEPS)
    assert len(told) == 1
    assert healthy.rescued == told[0]
    assert healthy.last_run_metadata["rescued"]


def test_where_measuring_asks_for_it_a_failure_is_a_failure(healthy: Last) -> None:
    break_it(healthy, "raises")
    healthy.rescues = False
    with pytest.raises(RuntimeError, match="a library that is broken"):
        healthy.predict(CONTEXT, STEPS)
    break_it(healthy, "not finite")
    with pytest.raises(NoForecastError):
        healthy.predict(CONTEXT, STEPS)


def test_a_shape_that_is_new_while_compiling_is_held_runs_in_eager_mode(healthy: Last) -> None:
    healthy.hold_compilation()
    before = healthy.compile_report
    # one variate more is another shape, which no graph is there for
    healthy.predict(np.stack([CONTEXT, CONTEXT]), STEPS)
    assert healthy.compile_report.graphs == before.graphs
    assert healthy.compile_report.eager_calls == before.eager_calls + 1


def test_every_call_is_counted_with_its_shape() -> None:
    seen: list[tuple[Any, ...]] = []
    made = pipeline()
    made.on_call = lambda *call: seen.append(call)
    made.predict(CONTEXT, STEPS)
    made.predict_many({"AMD": CONTEXT, "MSFT": CONTEXT[-16:]}, STEPS)
    assert [call[1] for call in seen] == [(32, STEPS, 0), (32, STEPS, 0), (16, STEPS, 0)]
    assert all(call[0] > 0 and call[3] is None for call in seen)


def test_after_unloading_and_in_a_fork_it_says_so() -> None:
    made = pipeline()
    made._pid = os.getpid() + 1
    with pytest.raises(PipelineForkedError):
        made.predict(CONTEXT, STEPS)
    gone = pipeline()
    gone.unload()
    with pytest.raises(PipelineClosedError):
        gone.predict(CONTEXT, STEPS)
