"""Switches of the process that change matrix products, and that a forecast does not depend on them."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from toto_core.float32_products import EXACT, TF32, pinned, switches
from toto_core.pipeline import TotoPipeline
from toto_core.settings import RuntimeSettings

HOSTILE = [
    "torch.set_float32_matmul_precision('medium')",
    "torch.set_float32_matmul_precision('high')",
    "torch.backends.cuda.matmul.allow_tf32 = True",
    "torch.backends.cuda.matmul.fp32_precision = 'tf32'",
    "torch.backends.fp32_precision = 'tf32'",
    "torch.backends.mkldnn.matmul.fp32_precision = 'bf16'",
    "torch.backends.cuda.matmul.allow_fp16_accumulation = True",
]
every_hostile_switch = pytest.mark.parametrize("hostile", HOSTILE)


@functools.cache
def mini(precision: str) -> TotoPipeline:
    return TotoPipeline.from_pretrained("toto-mini", settings=RuntimeSettings(precision=precision))


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    yield
    torch.backends.fp32_precision = "none"  # type: ignore[attr-defined]
    torch.backends.mkldnn.matmul.fp32_precision = "none"  # type: ignore[attr-defined]
    torch.backends.cuda.matmul.allow_fp16_accumulation = False
    torch.set_float32_matmul_precision("highest")


@every_hostile_switch
@pytest.mark.parametrize("wanted", [EXACT, TF32])
def test_inside_a_block_what_is_wanted_holds_and_torch_can_tell(hostile: str, wanted: object) -> None:
    exec(hostile)
    assert isinstance(wanted, type(EXACT))

    with pinned(wanted):
        assert switches() == wanted
        # the older names agree: torch's compiler reads them and fails where they do not
        assert torch.get_float32_matmul_precision() == ("highest" if wanted == EXACT else "high")
        assert torch.backends.cuda.matmul.allow_tf32 is (wanted == TF32)


@every_hostile_switch
def test_after_a_block_everything_is_as_it_was_even_when_it_fails(hostile: str) -> None:
    exec(hostile)
    before, older = switches(), _older()

    with pytest.raises(ZeroDivisionError), pinned(TF32):
        raise ZeroDivisionError

    assert (switches(), _older()) == (before, older)


def test_a_block_inside_another_holds_and_ends_for_itself() -> None:
    with pinned(EXACT) as before, pinned(TF32) as outer:
        assert outer == EXACT != before
        with pinned(EXACT):
            assert switches() == EXACT
        assert switches() == TF32


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@every_hostile_switch
def test_a_forecast_is_the_same_to_the_bit_whatever_is_switched(hostile: str, precision: str) -> None:
    pipeline = mini(precision)
    prices = 100.0 + np.sin(np.arange(512.0))
    quiet = pipeline.predict(prices, 8, 16)

    exec(hostile)

    assert torch.equal(pipeline.predict(prices, 8, 16).mean, quiet.mean)


def test_a_variable_that_turns_tf32_on_does_not_reach_a_call() -> None:
    code = """
import torch
from toto_core.float32_products import EXACT, pinned, switches
print(switches().cuda)
with pinned(EXACT):
    print(switches().cuda)
"""
    environ = os.environ | {"TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], env=environ, capture_output=True, text=True, check=True
    )

    assert done.stdout.split() == ["tf32", "ieee"]


def _older() -> str | None:
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:
        return None
