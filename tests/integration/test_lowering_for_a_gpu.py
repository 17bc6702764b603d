"""What torch would record as CUDA graphs, seen without a GPU; needs torch's CUDA build, which most machines lack.

Nothing runs on a GPU here: a process of its own, which believes in one, lowers the calls of a forecast as far as the
kernels' source, and tells which of its inputs they write into (tests/support/lower_for_gpu.py).
"""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

SUPPORT = Path(__file__).parents[1] / "support"
INCLUDES = sorted(
    header.parent
    for folder in map(Path, sys.path)
    for pattern in ("nvidia/*/include", "triton/backends/nvidia/include")  # neither has all of them
    for header in folder.glob(f"{pattern}/driver_types.h")
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(torch.version.cuda is None or not INCLUDES, reason="needs a CUDA build of torch"),
    pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs Triton"),
    pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here: tests/gpu tell more"),
]


Lowered = Callable[..., tuple[dict[str, Any], str]]
"""What the process tells of a call's inputs, and what torch said meanwhile."""


@pytest.fixture(scope="module")
def lowered(tmp_path_factory: pytest.TempPathFactory) -> Lowered:
    """Lowers a call as the arguments of the process say, each once."""
    folder = tmp_path_factory.mktemp("lowering")
    stub = folder / "stub.so"
    source, includes = SUPPORT / "gpu_stub.c", [f"-I{each}" for each in INCLUDES]
    subprocess.run(["gcc", "-shared", "-fPIC", *includes, "-o", stub, source], check=True)
    folders = {"TMPDIR": str(folder), "TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor")}
    believing = os.environ | folders | {"LD_PRELOAD": str(stub), "PYTHONPATH": str(SUPPORT.parents[1])}

    @functools.cache
    def lower(*arguments: str) -> tuple[dict[str, Any], str]:
        command = [sys.executable, str(SUPPORT / "lower_for_gpu.py"), *arguments]
        run = subprocess.run(command, env=believing, capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stderr[-3000:]
        return json.loads(run.stdout.splitlines()[-1]), run.stderr

    return lower


@pytest.mark.parametrize("call", [("fp32", "first", "8"), ("bf16", "first", "128")])
def test_a_first_patch_writes_into_none_of_its_inputs(call: tuple[str, ...], lowered: Lowered) -> None:
    found, _ = lowered(*call)

    assert found["inputs"] > 0
    assert found["mutated"] == []


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_following_patch_writes_only_into_inputs_that_never_move(precision: str, lowered: Lowered) -> None:
    found, _ = lowered(precision, "following", "128")

    assert found["mutated"]
    assert set(found["mutated"]) <= set(found["static"])


def test_a_suffix_that_may_move_would_be_noticed(lowered: Lowered) -> None:
    found, _ = lowered("fp32", "following", "128", "may-move")

    assert set(found["mutated"]) - set(found["static"])


def test_torch_warns_of_tf32_in_the_words_that_are_ignored_or_not_at_all(lowered: Lowered) -> None:
    _, said = lowered("fp32", "first", "8")
    warned = [line for line in said.splitlines() if "UserWarning: " in line]

    assert all("UserWarning: TensorFloat32" in line for line in warned), said
