from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch._inductor.config as inductor_config
from torch import Tensor

from tests.support.toto2_golden import all_requests, toto2_case
from tests.support.toto2_model import TINY, save_toto2_model
from toto_core.settings import RuntimeSettings
from toto_core.toto2 import Toto2Options, Toto2Pipeline

# Every test here compiles, which is slow. torch's compiler imports a part of torch that warns about itself.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.compiling,
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning"),
]

PATCH = TINY.patch_size
SETTINGS = RuntimeSettings(compile_mode="default", freezing=True, series_per_batch=2, context_bucket=48)


@pytest.fixture(scope="module", autouse=True)
def compiler_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch, inductor_config.patch(compile_threads=1):
        patch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path_factory.mktemp("inductor")))
        patch.setenv("TORCHINDUCTOR_COMPILE_THREADS", "1")
        yield


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    one_layer = dataclasses.replace(TINY, num_layers=1, layer_group_size=1, num_variate_layers_per_group=0)
    return save_toto2_model(tmp_path_factory.mktemp("toto2"), one_layer)


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("packages")


@pytest.fixture(scope="module")
def compiled(model: str, artifacts: Path) -> Toto2Pipeline:
    """Compiled for one bucket and blocks of a patch, once for all tests."""
    options = Toto2Options(decode_block_size=PATCH)
    pipeline = Toto2Pipeline.from_pretrained(model, settings=SETTINGS, artifacts=artifacts, options=options)
    pipeline.rescues = False
    pipeline.predict(walk(48), 3 * PATCH)
    return pipeline


def walk(length: int) -> Tensor:
    return 80.0 + torch.randn(length, generator=torch.Generator().manual_seed(length)).cumsum(0)


def share_of_largest(ours: Tensor, expected: Tensor) -> float:
    assert ours.shape == expected.shape
    return float((ours - expected).abs().max() / expected.abs().max())


def test_mixed_requests_after_warm_up_compile_nothing_and_answer_as_eager_does(
    compiled: Toto2Pipeline, model: str
) -> None:
    warm = compiled.compile_report
    assert (warm.graphs, warm.recompiles, warm.graph_breaks, warm.really_compiled) == (2, 0, 0, True)
    eager = Toto2Pipeline.from_pretrained(model, options=compiled.options)
    for turn in range(60):
        contexts = {f"S{i}": walk(8 + (turn * 5 + i * 11) % 41) for i in range(1 + turn % 4)}
        horizon = 2 * PATCH + 1 + turn % PATCH
        ours, expected = (each.predict_many(contexts, horizon) for each in (compiled, eager))
        for name in contexts:
            assert share_of_largest(ours[name].quantiles, expected[name].quantiles) < 1e-5
    assert compiled.compile_report == warm


def test_the_next_process_finds_what_this_one_compiled(
    compiled: Toto2Pipeline, model: str, artifacts: Path
) -> None:
    again = Toto2Pipeline.from_pretrained(
        model, settings=SETTINGS, artifacts=artifacts, options=compiled.options
    )
    ours = again.predict(walk(40), 3 * PATCH).quantiles
    report = again.compile_report
    assert (report.graphs, report.cache_hits, report.really_compiled) == (2, 2, True)
    assert torch.equal(ours, compiled.predict(walk(40), 3 * PATCH).quantiles)


def test_on_hold_a_shape_never_seen_runs_eagerly(compiled: Toto2Pipeline) -> None:
    before = compiled.compile_report
    compiled.hold_compilation()
    compiled.predict(walk(60), 2 * PATCH)
    compiled.hold_compilation(hold=False)
    assert compiled.compile_report.graphs == before.graphs
    assert compiled.compile_report.eager_calls > before.eager_calls


def test_a_compiled_call_that_fails_is_answered_in_eager_mode(
    compiled: Toto2Pipeline, model: str, artifacts: Path
) -> None:
    rescued = Toto2Pipeline.from_pretrained(
        model, settings=SETTINGS, artifacts=artifacts, options=compiled.options
    )
    heard: list[str] = []
    rescued.on_rescue = heard.append
    expected = rescued.predict(walk(48), 3 * PATCH).quantiles
    ahead = rescued._open().calls._ahead
    assert ahead is not None

    def broken(tensors: list[Tensor]) -> list[Tensor]:
        raise ValueError("guard failed")

    ahead._loaded = dict.fromkeys(ahead._loaded, broken)
    with pytest.warns(RuntimeWarning, match="a compiled call failed"):
        ours = rescued.predict(walk(48), 3 * PATCH).quantiles

    assert share_of_largest(ours, expected) < 1e-5
    assert heard == ["ValueError: guard failed"]
    assert rescued.last_run_metadata["rescued"] is True
    assert not rescued.compiled


@pytest.mark.exhaustive  # the suite holds compiled against eager, and eager against the reference
@pytest.mark.parametrize(("name", "horizon", "block"), all_requests())
@pytest.mark.parametrize("freezing", [False, True])
def test_compiled_quantiles_are_the_reference_ones(
    name: str, horizon: int, block: int, freezing: bool
) -> None:
    case = toto2_case(name)
    pipeline = case.pipeline(RuntimeSettings(compile_mode="default", freezing=freezing, series_per_batch=2))
    pipeline.rescues = False
    ours = pipeline.predict(**case.asked(horizon, block)).quantiles
    assert pipeline.compile_report.really_compiled
    assert share_of_largest(ours, case.expected(horizon, block)) < 1e-5


@pytest.mark.exhaustive  # whole graphs are what a CPU is given unless these are asked for
@pytest.mark.parametrize("asked", [{"compile_scope": "layer"}, {"dynamic": True}, {"precision": "bf16"}])
def test_other_ways_to_compile_answer_as_eager_does(asked: dict[str, object]) -> None:
    case = toto2_case("groups_missing")
    settings = RuntimeSettings(compile_mode="default", series_per_batch=2).replace(**asked)
    pipeline, eager = case.pipeline(settings), case.pipeline(settings.replace(compile_mode="eager"))
    pipeline.rescues = False
    horizon, block = case.requests[-1]
    ours, expected = (each.predict(**case.asked(horizon, block)).quantiles for each in (pipeline, eager))
    assert pipeline.compile_report.really_compiled
    assert share_of_largest(ours, expected) < (1e-3 if settings.precision == "bf16" else 1e-5)
