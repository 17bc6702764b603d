from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch._inductor.config as inductor_config
from numpy.typing import NDArray
from torch import Tensor

from tests.support.golden import CASES, GoldenCase, golden_case, horizons_of
from toto_core.pipeline import TotoPipeline
from toto_core.settings import RuntimeSettings
from toto_core.toto1.decode import Decoder
from toto_core.toto1.model import TotoModel
from toto_core.toto1.model_config import ModelConfig

# Every test here compiles, which is slow. torch's compiler imports a part of torch that warns about itself.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.compiling,
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning"),
]

TINY = ModelConfig(
    patch_size=8,
    embed_dim=16,
    num_layers=2,
    num_heads=2,
    mlp_hidden_dim=24,
    spacewise_every_n_layers=2,
    k_components=3,
)
ONE_LAYER = replace(TINY, num_layers=1, spacewise_every_n_layers=-1)


@pytest.fixture(scope="module", autouse=True)
def compiler_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch, inductor_config.patch(compile_threads=1):
        patch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path_factory.mktemp("inductor")))
        patch.setenv("TORCHINDUCTOR_COMPILE_THREADS", "1")
        yield


def tiny(settings: RuntimeSettings, config: ModelConfig = TINY) -> tuple[TotoPipeline, TotoPipeline]:
    """A pipeline under ``settings`` and an eager one, of one random model."""
    torch.manual_seed(5)
    model = TotoModel(config).eval().requires_grad_(False)
    device = torch.device("cpu")
    return (
        TotoPipeline(Decoder(model).eval(), settings, device, load_ms=0.0),
        TotoPipeline(Decoder(model).eval(), RuntimeSettings(), device, load_ms=0.0),
    )


def walk(length: int, variates: int = 1) -> NDArray[np.float64]:
    moves = np.random.default_rng(length).normal(0.0, 0.01, size=(variates, length))
    prices: NDArray[np.float64] = 80.0 * np.exp(moves.cumsum(-1))
    return prices


def relative_error(ours: Tensor, expected: Tensor) -> float:
    return float((ours.double() - expected.double()).abs().max() / expected.double().abs().max())


def samples_of(pipeline: TotoPipeline, context: NDArray[np.float64], horizon: int) -> Tensor:
    samples = pipeline.predict(context, horizon, num_samples=11, seed=4).samples
    assert samples is not None
    return samples


def mean_path(pipeline: TotoPipeline, case: GoldenCase, first: int, horizon: int) -> Tensor:
    forecast = pipeline.predict(
        case.series[:, first:],
        horizon,
        num_samples=None,
        padding_mask=case.padding_mask[:, first:],
        id_mask=case.id_mask[:, first:],
    )
    return forecast.mean


@pytest.fixture(scope="module")
def warmed_up() -> tuple[TotoPipeline, TotoPipeline]:
    """A pipeline compiled for one bucket, first patch and cached steps, and an eager one; compiled once for all."""
    settings = RuntimeSettings(
        compile_mode="default", freezing=True, context_bucket=64, series_per_batch=3, samples_per_batch=5
    )
    compiled, eager = tiny(settings, ONE_LAYER)
    compiled.predict(walk(64), 20, num_samples=5)
    return compiled, eager


def test_two_hundred_mixed_requests_after_warm_up_compile_nothing_and_answer_as_eager_does(
    warmed_up: tuple[TotoPipeline, TotoPipeline],
) -> None:
    compiled, eager = warmed_up
    warm = compiled.compile_report
    assert (warm.requested, warm.graphs, warm.recompiles, warm.graph_breaks) == (True, 2, 0, 0)
    assert warm.really_compiled
    assert warm.compile_seconds > 0.0

    rng = np.random.default_rng(0)
    for turn in range(200):
        lengths = rng.integers(8, 65, size=rng.integers(1, 8))
        series = {f"S{i}": walk(int(length))[0] for i, length in enumerate(lengths)}
        horizon = int(rng.integers(17, 25))  # three patches, so that cached steps are taken too
        ours = compiled.predict_many(series, horizon, num_samples=5, seed=turn)
        if turn % 10:
            continue
        for name, context in series.items():
            expected = eager.predict(context, horizon, num_samples=5, seed=turn)
            assert relative_error(ours[name].mean, expected.mean) < 1e-5

    assert compiled.compile_report == warm
    metadata = compiled.last_run_metadata
    assert metadata["torch_compile_success"] is True
    assert (metadata["graphs"], metadata["recompiles"], metadata["recompile_limit_hit"]) == (2, 0, False)
    assert metadata["cold_start_ms"] > metadata["latency_ms"] > 0.0


@pytest.mark.exhaustive  # the suite holds compiled against eager, and eager against the reference
def test_a_graph_compiled_ahead_gives_the_reference() -> None:
    case = golden_case("grouped_padded")
    compiled = case.pipeline(RuntimeSettings(compile_mode="default", freezing=True))
    assert relative_error(mean_path(compiled, case, 0, 8), case.vectors["mean.cached.h8"]) < 1e-4


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", CASES)
def test_every_reference_case_comes_out_compiled_cached_and_in_a_bucket(name: str) -> None:
    # the longest horizon takes the first patch and cached steps; contexts that end earlier ride in the bucket
    case = golden_case(name)
    compiled = case.pipeline(RuntimeSettings(compile_mode="default", freezing=True, context_bucket=512))
    horizon = max(horizons_of(name))

    ours = mean_path(compiled, case, 0, horizon)

    limit = 0.03 / float(ours.abs().max()) if name == "constant" else 1e-4
    assert relative_error(ours, case.vectors[f"mean.cached.h{horizon}"]) < limit
    shorter = mean_path(compiled, case, 20, horizon)
    assert relative_error(shorter, mean_path(case.pipeline(), case, 20, horizon)) < 2e-6
    report = compiled.compile_report
    assert (report.graphs, report.recompiles, report.graph_breaks) == (2, 0, 0)


def test_on_hold_an_unknown_shape_runs_eagerly_is_counted_and_compiles_nothing(
    warmed_up: tuple[TotoPipeline, TotoPipeline],
) -> None:
    compiled, eager = warmed_up
    before = compiled.compile_report
    compiled.hold_compilation()
    try:
        hold_and_compare(compiled, eager, walk(64), horizon=20)
    finally:
        compiled.hold_compilation(hold=False)
    assert compiled.compile_report.eager_calls > before.eager_calls


def hold_and_compare(
    compiled: TotoPipeline, eager: TotoPipeline, known: NDArray[np.float64], horizon: int
) -> None:
    """What is held answers a known and an unknown shape as eager does, and has no graph more than before."""
    before, unknown = compiled.compile_report, walk(24, variates=2)
    for context in (known, unknown):
        ours, expected = (
            pipeline.predict(context, horizon, num_samples=5, seed=4).mean for pipeline in (compiled, eager)
        )
        assert relative_error(ours, expected) < 1e-5
    assert compiled.compile_report.graphs == before.graphs


@pytest.mark.exhaustive  # the suite reaches the limit in a trial and in a process of production
def test_reaching_the_recompile_limit_is_reported_and_the_forecast_stays_right() -> None:
    compiled, eager = tiny(RuntimeSettings(compile_mode="default", recompile_limit=1))

    ours, expected = (samples_of(pipeline, walk(64), 8) for pipeline in (compiled, eager))
    assert relative_error(ours, expected) < 2e-6
    assert compiled.compile_report.graphs == 1
    assert compiled.last_run_metadata["torch_compile_success"] is True

    ours, expected = (samples_of(pipeline, walk(40), 8) for pipeline in (compiled, eager))
    assert torch.equal(ours, expected)
    assert compiled.compile_report.recompile_limit_hit
    assert compiled.compile_report.graphs == 1
    assert compiled.last_run_metadata["recompile_limit_hit"] is True
    assert compiled.last_run_metadata["torch_compile_success"] is False


@pytest.mark.exhaustive  # the suite has a layer compiled in production
def test_compiling_the_repeated_layer_alone_gives_the_eager_forecast_and_on_hold_nothing_more() -> None:
    compiled, eager = tiny(RuntimeSettings(compile_mode="default", compile_scope="layer"))
    known = walk(56, variates=2)

    ours, expected = (samples_of(pipeline, known, 8) for pipeline in (compiled, eager))

    assert relative_error(ours, expected) < 2e-6
    assert compiled.compile_report.graphs == 2  # the time-wise and the space-wise layer
    assert compiled.last_run_metadata["torch_compile_success"] is True
    compiled.hold_compilation()
    hold_and_compare(compiled, eager, known, horizon=8)


def test_a_dynamic_graph_serves_several_context_lengths() -> None:
    compiled, eager = tiny(RuntimeSettings(compile_mode="default", dynamic=True))

    for length in (72, 104, 160):
        ours, expected = (samples_of(pipeline, walk(length), 5) for pipeline in (compiled, eager))
        assert relative_error(ours, expected) < 2e-6

    assert compiled.compile_report.graphs == 1
    assert compiled.compile_report.recompiles == 0
    assert compiled.last_run_metadata["torch_compile_success"] is True
