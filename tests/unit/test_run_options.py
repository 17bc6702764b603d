from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from autotuner.cli.run_options import RunOptions, requests_of
from tests.support.containers import limited
from toto_core.container import ROOT_VARIABLE
from toto_core.series import PriceSource

UNSAID = dict.fromkeys(
    (
        *(
            "profile",
            "max_mae",
            "max_quantile_loss",
            "workload_file",
            "context_length",
            "prediction_length",
            "num_samples",
        ),
        *("calls_per_process", "concurrency", "deadline_ms", "memory_limit_mb", "because", "threads"),
        "replay",
    )
)
OPTIONS = RunOptions(
    **UNSAID,
    models=(),
    prices=PriceSource(),
    trials=40,
    seconds=300.0,
    device="cpu",
    triggers=(),
    canary=0.0,
    seed=0,
    resume=True,
    fresh=False,
)


def peak_bytes(options: RunOptions) -> int | None:
    (request,) = requests_of("AMD", options)
    return request.limits.peak_bytes


def test_a_container_bounds_the_memory_of_settings_unless_another_limit_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ROOT_VARIABLE, str(tmp_path))
    assert peak_bytes(OPTIONS) is None
    limited(tmp_path, cpus=2, memory_bytes=1 << 30)
    assert peak_bytes(OPTIONS) == int(0.6 * (1 << 30))
    assert peak_bytes(replace(OPTIONS, memory_limit_mb=900)) == 900 << 20


def test_a_containers_memory_bounds_neither_a_gpus_nor_what_was_recorded_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ROOT_VARIABLE, str(limited(tmp_path, cpus=2, memory_bytes=1 << 30)))
    assert peak_bytes(replace(OPTIONS, device="cuda")) is None
    assert peak_bytes(replace(OPTIONS, replay=Path("results.csv"))) is None
