"""The engine on a GPU; `make gpu` runs these on a machine that has one, elsewhere they are skipped."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from autotuner.environment import current_environment
from autotuner.machine.nvidia import NO_GPU, gpu_state, visible_gpu
from autotuner.measurement.child.handle import not_compiled
from tests.support.golden import golden_case, write_official_folder
from toto_core.compiling.recorded import Recorder
from toto_core.pipeline import TotoPipeline
from toto_core.series import find_series
from toto_core.settings import PRECISIONS, RuntimeSettings

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    pytest.mark.filterwarnings("ignore"),  # what a release of torch warns of on a GPU is not ours to choose
]
TYPICAL, HALF = 1e-5, 0.02
"""Share of the largest price, and of the spread of a forecast, by which a mean path may differ."""


@pytest.fixture(autouse=True)
def _apart() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch.cuda.empty_cache()


def mini(settings: RuntimeSettings, device: str = "cuda") -> TotoPipeline:
    return TotoPipeline.from_pretrained("toto-mini", device=device, settings=settings)


def context() -> Tensor:
    return torch.tensor(find_series("AMD", None).close[-512:], dtype=torch.float32)


def replayed(pipeline: TotoPipeline, horizon: int) -> set[str]:
    """Names of the runtime's calls in one forecast after four others."""
    for seed in range(4):
        pipeline.predict(context(), horizon, 32, seed=seed)
    with torch.profiler.profile() as profile:
        pipeline.predict(context(), horizon, 32, seed=9)
    return {event.key for event in profile.key_averages()}


@pytest.mark.parametrize("name", ["univariate", "grouped_padded", "long_horizon", "spacewise_first", "jump"])
def test_eager_fp32_gives_the_reference_numbers(name: str, tmp_path: Path) -> None:
    case = golden_case(name)
    pipeline = TotoPipeline.from_pretrained(str(write_official_folder(name, tmp_path)), device="cuda")
    pipeline.common_scale = False

    ours = pipeline.predict(case.series, 8, None, padding_mask=case.padding_mask, id_mask=case.id_mask).mean

    reference = case.vectors["mean.cached.h8"]
    assert float(((ours - reference).abs() / reference.abs()).max()) < TYPICAL


@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_precision_gives_about_the_forecast_of_a_cpu(precision: str) -> None:
    asked = RuntimeSettings(precision=precision)
    ours = mini(asked).predict(context(), 8, None).mean
    exact = mini(RuntimeSettings(), "cpu").predict(context(), 8, 256)
    assert exact.samples is not None
    low, high = torch.quantile(exact.samples, torch.tensor([0.1, 0.9]), dim=-1)

    moved = float(((ours - mini(RuntimeSettings(), "cpu").predict(context(), 8, None).mean).abs()).max())

    assert moved < HALF * float((high - low).mean())


def test_tf32_and_fp16_are_really_other_numbers() -> None:
    found = {p: mini(RuntimeSettings(precision=p)).predict(context(), 8, None).mean for p in PRECISIONS}

    for one in PRECISIONS:
        for other in PRECISIONS[: PRECISIONS.index(one)]:
            assert not torch.equal(found[one], found[other]), (one, other)


@pytest.mark.parametrize(
    "hostile",
    [
        "torch.set_float32_matmul_precision('medium')",
        "torch.backends.cuda.matmul.allow_tf32 = True",
        "torch.backends.cuda.matmul.fp32_precision = 'tf32'",
        "torch.backends.fp32_precision = 'tf32'",
    ],
)
def test_fp32_stays_fp32_whatever_switch_another_part_of_the_process_sets(hostile: str) -> None:
    quiet = mini(RuntimeSettings()).predict(context(), 8, None).mean
    try:
        exec(hostile)
        assert torch.equal(mini(RuntimeSettings()).predict(context(), 8, None).mean, quiet)
    finally:
        torch.backends.fp32_precision = "none"  # type: ignore[attr-defined]
        torch.set_float32_matmul_precision("highest")


def test_the_card_is_named_in_full_and_its_state_can_be_read() -> None:
    card = visible_gpu()
    assert card != NO_GPU
    assert torch.cuda.get_device_name(0) in card.model
    assert "sm_{}{}".format(*torch.cuda.get_device_capability(0)) in card.model
    assert card.uuid.startswith(("GPU-", "MIG-"))
    environment = current_environment("cuda")
    assert str(torch.version.cuda) in environment.torch
    torch.ones(1, device="cuda")
    assert gpu_state() is not None


def test_memory_is_what_torch_reserved() -> None:
    pipeline = mini(RuntimeSettings())
    pipeline.predict(context(), 8, 32)

    assert pipeline.peak_bytes == torch.cuda.max_memory_reserved() > 0


@pytest.mark.parametrize("horizon", [8, 128])
def test_cuda_graphs_are_replayed_for_one_patch_and_for_several_and_forecast_as_eager_does(
    horizon: int,
) -> None:
    compiled, eager = mini(RuntimeSettings(compile_mode="reduce-overhead")), mini(RuntimeSettings())

    for seed in range(6):
        ours, theirs = (p.predict(context(), horizon, 32, seed=seed) for p in (compiled, eager))
        assert ours.samples is not None
        assert theirs.samples is not None
        torch.testing.assert_close(ours.samples, theirs.samples, rtol=1e-4, atol=1e-2)
    assert "cudaGraphLaunch" in replayed(compiled, horizon)
    assert compiled.compile_report.really_compiled
    assert compiled.compile_report.recompiles == 0
    assert compiled.compile_report.cudagraph_skips == ()
    assert not_compiled(compiled.settings, compiled.compile_report, "cuda") is None


def test_without_graphs_nothing_is_replayed() -> None:
    assert "cudaGraphLaunch" not in replayed(mini(RuntimeSettings(compile_mode="default")), 8)


def test_a_mode_whose_graphs_are_skipped_is_not_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    # What a suffix in tensors that move comes to: torch skips the graph in every call and says nothing.
    monkeypatch.setattr("toto_core.compiling.calls.stay_in_place", lambda suffix: suffix)
    pipeline = mini(RuntimeSettings(compile_mode="reduce-overhead"))

    # A graph found in the cache brings along what was marked when it was compiled.
    with torch._inductor.utils.fresh_cache():
        replayed(pipeline, 128)

    assert pipeline.compile_report.really_compiled
    assert not_compiled(pipeline.settings, pipeline.compile_report, "cuda") is not None


def test_two_pipelines_in_turns_forecast_as_each_alone() -> None:
    graphs = [mini(RuntimeSettings(compile_mode="reduce-overhead", precision=p)) for p in ("fp32", "bf16")]
    alone = [[each.predict(context(), 128, 16, seed=seed).mean for seed in range(5)] for each in graphs]

    in_turns = [[each.predict(context(), 128, 16, seed=seed).mean for each in graphs] for seed in range(5)]

    for number, expected in enumerate(alone):
        for seed, mean in enumerate(expected):
            torch.testing.assert_close(in_turns[seed][number], mean, rtol=1e-6, atol=0.0)


def test_a_batch_beyond_one_patch_in_parts_is_the_batch_at_once() -> None:
    asked = RuntimeSettings(compile_mode="reduce-overhead", series_per_batch=2, samples_per_batch=8)
    series = torch.stack([context(), context() * 1.5, context() * 0.7]).unsqueeze(1)

    ours, theirs = (mini(s).predict(series, 100, 32).mean for s in (asked, RuntimeSettings()))

    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=0.0)


@pytest.mark.parametrize("mode", ["eager", "default"])
@pytest.mark.parametrize("horizon", [8, 300])
def test_calls_recorded_by_hand_give_the_same_numbers(mode: str, horizon: int) -> None:
    asked = RuntimeSettings(compile_mode=mode, series_per_batch=2, samples_per_batch=8)
    series = torch.stack([context(), context() * 1.5, context() * 0.7]).unsqueeze(1)
    plain, recorded = mini(asked), mini(asked)
    recorded._open().calls.recorder = Recorder()

    for seed in range(4):
        ours, theirs = (p.predict(series, horizon, 32, seed=seed).mean for p in (recorded, plain))
        assert torch.equal(ours, theirs)
