"""Workload files: ``autotune run --workload FILE``."""

from __future__ import annotations

import math

from autotuner.errors import UsageError
from autotuner.workload import Workload, read_workload
from tests.faults.fuzzing import mutation, scratch
from tests.faults.fuzzing.verdicts import check, check_line, refused_with

SECONDS = 0.5
mutated = mutation.lines


def seeds() -> tuple[bytes, ...]:
    return (
        b'model = "toto-mini"\nseries_per_call = 4\n',
        b"[[requests]]\ncontext_length = 512\nprediction_length = 8\nnum_samples = 0\nweight = 0.7\n\n"
        b"[[requests]]\ncontext_length = 256\nprediction_length = 24\nvariates = 2\nweight = 0.3\n",
        b'model = "Datadog/Toto-Open-Base-1.0"\nrevision = "main"\ncalls_per_process = 100_000\nconcurrency = 3\n'
        b"requests = [{context_length = 64, prediction_length = 4, weight = 1e-3}]\n",
    )


def one(data: bytes) -> None:
    path = scratch.folder("workloads") / "workload.toml"
    path.write_bytes(data)
    with refused_with(UsageError):
        workload = read_workload(path)
        check(math.isclose(sum(workload.weights), 1), f"the weights {workload.weights} are shares")
        check_line(workload.summary, "its summary")
        check(
            Workload.from_dict(workload.to_dict()).signature == workload.signature, "it comes back as it was"
        )
        workload.facts(device="cpu", threads=2, patch_size=32)
