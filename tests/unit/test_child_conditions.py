"""What a child process is given, and which of its outcomes count as compiled."""

from __future__ import annotations

from pathlib import Path

import pytest

from autotuner.measurement.child.handle import child_environment, not_compiled
from autotuner.measurement.child.job import ArmJob
from autotuner.workload import Workload
from toto_core.compile_report import CompileReport
from toto_core.settings import COMPILE_MODES, CUDA_GRAPH_MODES, RuntimeSettings

HOSTILE = (
    "NVIDIA_TF32_OVERRIDE",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
    "PYTORCH_ALLOC_CONF",
    "PYTORCH_CUDA_ALLOC_CONF",
    "CUDA_LAUNCH_BLOCKING",
    "CUBLAS_WORKSPACE_CONFIG",
    "CUBLASLT_WORKSPACE_SIZE",
    "TRITON_CACHE_DIR",
    "TORCHINDUCTOR_MAX_AUTOTUNE",
    "TOTO_COMPILE_MODE",
    "OMP_NUM_THREADS",
    "ONEDNN_DEFAULT_FPMATH_MODE",
)
SKIPPED = CompileReport(requested=True, graphs=2, cudagraph_skips=("mutated inputs (22 instances)",))


def job(folder: Path, device: str, settings: RuntimeSettings) -> ArmJob:
    return ArmJob(
        settings=settings,
        workload=Workload(),
        device=device,
        artifacts=str(folder),
        answer_file=str(folder / "answer"),
        series_file="close.npy",
        last_fifth_start=0,
        seeds=(1,),
        windows=1,
        memory_bytes=1,
        warm_up_seconds=1.0,
    )


@pytest.mark.parametrize("name", HOSTILE)
def test_a_variable_that_would_change_a_measurement_does_not_reach_a_child(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "hostile")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")

    given = child_environment(job(tmp_path, "cuda", RuntimeSettings()))

    assert given.get(name) != "hostile"
    assert given["CUDA_VISIBLE_DEVICES"] == "1"


def test_a_cpu_compiles_with_one_worker_and_a_gpu_with_several(tmp_path: Path) -> None:
    workers = {
        device: int(
            child_environment(job(tmp_path, device, RuntimeSettings()))["TORCHINDUCTOR_COMPILE_THREADS"]
        )
        for device in ("cpu", "cuda")
    }

    assert workers["cpu"] == 1
    assert 1 <= workers["cuda"] <= 8


@pytest.mark.parametrize(
    ("report", "cause"),
    [
        (CompileReport(requested=True), "no graph was compiled"),
        (
            CompileReport(requested=True, graphs=2, recompile_limit_hit=True),
            "the recompile limit of 8 was reached",
        ),
    ],
)
def test_a_trial_that_ran_eagerly_is_not_compiled(report: CompileReport, cause: str) -> None:
    failed = not_compiled(RuntimeSettings(compile_mode="default"), report)

    assert failed is not None
    assert failed.kind == "not_compiled"
    assert cause in failed.detail
    assert not_compiled(RuntimeSettings(), report) is None


@pytest.mark.parametrize("mode", COMPILE_MODES[1:])
def test_a_mode_whose_graphs_torch_skips_is_not_compiled_where_graphs_are_recorded(mode: str) -> None:
    settings = RuntimeSettings(compile_mode=mode)

    on_a_gpu = not_compiled(settings, SKIPPED, "cuda")

    assert not_compiled(settings, SKIPPED, "cpu") is None
    assert (on_a_gpu is not None) is (mode in CUDA_GRAPH_MODES)
    if on_a_gpu is not None:
        assert on_a_gpu.kind == "not_compiled"
        assert "mutated inputs (22 instances)" in on_a_gpu.detail
