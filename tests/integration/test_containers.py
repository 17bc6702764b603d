"""Processes that are measured, and processes of production, keep to a container's quota and memory."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from autotuner.measurement.child.handle import Child
from autotuner.measurement.child.job import ArmJob
from autotuner.measurement.outcome import Failed
from autotuner.search.profiles import profile
from autotuner.tuning.measuring import plan_measuring, prepare
from autotuner.workload import RequestShape, Workload
from tests.support.containers import limited
from tests.support.tiny_model import save_tiny_model
from toto_core.container import ROOT_VARIABLE
from toto_core.series import PriceSource
from toto_core.settings import RuntimeSettings

CPUS = len(os.sched_getaffinity(0))
MEMORY = 3 << 30
THREADS = """
import json, sys, torch
from toto_core import RuntimeSettings, TotoPipeline
counts = []
for count in json.loads(sys.argv[2]):
    TotoPipeline.from_pretrained(sys.argv[1], settings=RuntimeSettings(num_threads=count))
    counts.append(torch.get_num_threads())
print(json.dumps(counts))
"""


@pytest.fixture
def model(tmp_path: Path) -> str:
    return str(save_tiny_model(tmp_path / "model"))


@pytest.fixture
def quota_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(ROOT_VARIABLE, str(limited(tmp_path / "tree", cpus=1, memory_bytes=MEMORY)))


@pytest.mark.skipif(CPUS < 2, reason="needs two CPUs")
@pytest.mark.usefixtures("quota_of_one")
def test_a_child_whose_settings_name_no_threads_runs_as_many_as_the_quota_has_cpus(
    tmp_path: Path, model: str
) -> None:
    np.save(tmp_path / "close.npy", np.linspace(100.0, 110.0, 400))
    job = ArmJob(
        settings=RuntimeSettings(),
        workload=tiny(model),
        device="cpu",
        artifacts=str(tmp_path / "artifacts"),
        answer_file=str(tmp_path / "answer"),
        series_file=str(tmp_path / "close.npy"),
        last_fifth_start=320,
        seeds=(1,),
        windows=2,
        memory_bytes=1 << 30,
        warm_up_seconds=1.0,
    )
    child = Child(job)
    try:
        child.wait_started(time.monotonic() + 60.0)
        assert child.threads == 1
    finally:
        child.close()


@pytest.mark.usefixtures("quota_of_one")
def test_what_is_measured_gets_a_share_of_the_containers_memory_and_leaves_a_cpu(
    tmp_path: Path, model: str
) -> None:
    prepared = prepare("AMD", tiny(model), prices=PriceSource(), device="cpu")
    plan = plan_measuring(prepared, profile=profile("research"))
    assert plan.space.reference.num_threads == 1

    limits: list[int] = []

    def look(said: str) -> None:
        if said.startswith("timing"):
            limits.extend(
                resource.prlimit(child.pid, resource.RLIMIT_DATA)[0]
                for child in psutil.Process().children()
                if "autotuner.measurement.child.main" in child.cmdline()  # a test worker has others, too
            )

    runner = plan.make_runner(look)
    try:
        launched = runner.launch([plan.space.reference], blocks=1, seconds=60.0)
    finally:
        runner.close()
    assert not any(isinstance(arm, Failed) for arm in launched.arms)
    assert limits == [int(0.6 * MEMORY)]


@pytest.mark.skipif(CPUS < 2, reason="needs two CPUs")
@pytest.mark.usefixtures("quota_of_one")
def test_production_keeps_to_the_quota_unless_somebody_chose_a_number(
    model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def threads(*counts: int | None) -> list[int]:
        done = subprocess.run(
            [sys.executable, "-c", THREADS, model, json.dumps(counts)],
            check=True,
            capture_output=True,
            text=True,
            timeout=60,
        )
        found: list[int] = json.loads(done.stdout)
        return found

    assert threads(None, 2, None) == [1, 2, 2]
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert threads(None) == [2]


def tiny(model: str) -> Workload:
    shape = RequestShape(context_length=64, prediction_length=4, num_samples=4)
    return Workload(model=model, shapes=(shape,))
