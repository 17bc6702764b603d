"""Pins the process-wide switches that change matrix products for the length of a call, and puts them back.

A switch that someone else in the process has set (TF32, bfloat16 for float32 products, sums in half precision) would
change the forecast and what was measured. Setting it costs a few microseconds, and nothing where it stands right.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch

_LEGACY = {"ieee": "highest", "tf32": "high"}
"""The older names of the precisions of float32 products."""


class Switches(NamedTuple):
    """How matrix products are computed in this process.

    ``cuda`` and ``cpu`` are the precision of float32 products, ``ieee``, ``tf32`` or ``bf16``; the others allow sums
    of half-precision products to be kept in less than float32.
    """

    cuda: str
    cpu: str
    bf16_sums: bool
    fp16_sums: bool
    fp16_accumulators: bool


EXACT = Switches("ieee", "ieee", bf16_sums=False, fp16_sums=False, fp16_accumulators=False)
"""Float32 products are float32, and every sum is kept in float32."""
TF32 = EXACT._replace(cuda="tf32", cpu="tf32")
"""Float32 products on a GPU round their factors to 10 bits of mantissa; a CPU has no such units."""


def switches() -> Switches:
    """What holds now."""
    matmul = torch.backends.cuda.matmul
    return Switches(
        _read("cuda"),
        _read("mkldnn"),
        matmul.allow_bf16_reduced_precision_reduction,
        matmul.allow_fp16_reduced_precision_reduction,
        matmul.allow_fp16_accumulation,
    )


@contextmanager
def pinned(wanted: Switches) -> Iterator[Switches]:
    """Let ``wanted`` hold inside the block; gives what held before."""
    before = switches()
    if before == wanted:
        yield before
        return
    same_products = before[:2] == wanted[:2]
    legacy = None if same_products else _legacy()
    _set_sums(wanted)
    if not same_products:
        _set_products(wanted, _LEGACY[wanted.cuda])
    try:
        yield before
    finally:
        _set_sums(before)
        if legacy is not None:
            _set_products(before, legacy)


def _set_products(wanted: Switches, legacy: str) -> None:
    # The older switch first, because it moves the newer ones; torch refuses to tell it while they disagree.
    torch.set_float32_matmul_precision(legacy)
    torch._C._set_fp32_precision_setter("cuda", "matmul", wanted.cuda)
    torch._C._set_fp32_precision_setter("mkldnn", "matmul", wanted.cpu)


def _set_sums(wanted: Switches) -> None:
    matmul = torch.backends.cuda.matmul
    matmul.allow_bf16_reduced_precision_reduction = wanted.bf16_sums
    matmul.allow_fp16_reduced_precision_reduction = wanted.fp16_sums
    matmul.allow_fp16_accumulation = wanted.fp16_accumulators


def _read(backend: str) -> str:
    precision: str = torch._C._get_fp32_precision_getter(backend, "matmul")
    return "ieee" if precision == "none" else precision


def _legacy() -> str:
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:  # someone used the newer switches alone
        return "highest"
