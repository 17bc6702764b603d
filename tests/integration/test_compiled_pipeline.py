from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
import torch._inductor.config as inductor_config
from numpy.typing import NDArray
from torch import Tensor

from tests.golden import GoldenCase, golden_case
from toto_core.config import ModelConfig
from toto_core.decode import Decoder
from toto_core.model import TotoModel
from toto_core.pipeline import TotoPipeline
from toto_core.settings import RuntimeSettings

# Every test here compiles, which is slow. torch's compiler imports a part of torch that warns about itself.
pytestmark = [
    pytest.mark.slow,
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


@pytest.fixture(scope="module", autouse=True)
def compiler_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch, inductor_config.patch(compile_threads=1):
        patch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path_factory.mktemp("inductor")))
        patch.setenv("TORCHINDUCTOR_COMPILE_THREADS", "1")
        yield


def tiny(settings: RuntimeSettings) -> tuple[TotoPipeline, TotoPipeline]:
    """A pipeline under ``settings`` and an eager one, of one random model."""
    torch.manual_seed(5)
    model = TotoModel(TINY).eval().requires_grad_(False)
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


def test_a_bucketed_compiled_pipeline_gives_the_reference_and_never_recompiles_in_its_bucket() -> None:
    # 33 steps are three patches, so the second and third are cached steps; contexts of 6, 5 and 1 patches
    case = golden_case("spacewise_first")
    compiled = case.pipeline(RuntimeSettings(compile_mode="default", context_bucket=128))
    eager = case.pipeline()

    ours = mean_path(compiled, case, 0, 33)
    assert relative_error(ours, case.vectors["mean.cached.h33"]) < 2e-6
    for first in (0, 20, 80):
        ours = mean_path(compiled, case, first, 33)
        assert relative_error(ours, mean_path(eager, case, first, 33)) < 2e-6

    report = compiled.compile_report
    assert (report.requested, report.graphs, report.recompiles, report.graph_breaks) == (True, 2, 0, 0)
    assert report.really_compiled
    assert report.compile_seconds > 0.0
    metadata = compiled.last_run_metadata
    assert metadata["torch_compile_success"] is True
    assert (metadata["graphs"], metadata["recompiles"], metadata["recompile_limit_hit"]) == (2, 0, False)
    assert metadata["cold_start_ms"] > metadata["latency_ms"] > 0.0


def test_reaching_the_recompile_limit_is_reported_and_the_forecast_stays_right() -> None:
    compiled, eager = tiny(RuntimeSettings(compile_mode="default", recompile_limit=1))

    # four patches: one graph for the context and one for all three cached steps
    ours, expected = (samples_of(pipeline, walk(64), 32) for pipeline in (compiled, eager))
    assert relative_error(ours, expected) < 2e-6
    assert compiled.compile_report.graphs == 2
    assert compiled.last_run_metadata["torch_compile_success"] is True

    ours, expected = (samples_of(pipeline, walk(40), 8) for pipeline in (compiled, eager))
    assert torch.equal(ours, expected)
    assert compiled.compile_report.recompile_limit_hit
    assert compiled.compile_report.graphs == 2
    assert compiled.last_run_metadata["recompile_limit_hit"] is True
    assert compiled.last_run_metadata["torch_compile_success"] is False


def test_compiling_the_repeated_layer_alone_gives_the_eager_forecast() -> None:
    compiled, eager = tiny(RuntimeSettings(compile_mode="default", compile_scope="layer"))

    ours, expected = (samples_of(pipeline, walk(56, variates=2), 8) for pipeline in (compiled, eager))

    assert relative_error(ours, expected) < 2e-6
    assert compiled.compile_report.graphs == 2  # the time-wise and the space-wise layer
    assert compiled.last_run_metadata["torch_compile_success"] is True


def test_a_dynamic_graph_serves_several_context_lengths() -> None:
    compiled, eager = tiny(RuntimeSettings(compile_mode="default", dynamic=True))

    for length in (72, 104, 160):
        ours, expected = (samples_of(pipeline, walk(length), 5) for pipeline in (compiled, eager))
        assert relative_error(ours, expected) < 2e-6

    assert compiled.compile_report.graphs == 1
    assert compiled.compile_report.recompiles == 0
    assert compiled.last_run_metadata["torch_compile_success"] is True
