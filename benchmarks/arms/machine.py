"""What the machine can do at most: bytes read per second, and multiply-adds of large matrices per precision."""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable

import torch
import torch.utils.mkldnn

_ROUNDS = 9
_BYTES = 1 << 30
_SIDE = 2048


def main() -> None:
    """Print one JSON line: ``read_bytes_per_s``, and ``fp32`` and ``bf16`` operations per second."""
    torch.set_num_threads(int(sys.argv[1]))
    memory = torch.ones(_BYTES // 4)
    limits = {"read_bytes_per_s": _BYTES / _best(memory.sum)}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        limits[name] = 2.0 * _SIDE**3 / min(_best(product) for product in _products(dtype))
    print(json.dumps(limits))


def _products(dtype: torch.dtype) -> tuple[Callable[[], object], Callable[[], object]]:
    """A plain matrix product, and one with packed weights, as frozen graphs have it: whichever is faster."""
    left, right = (torch.randn(_SIDE, _SIDE).to(dtype) for _ in range(2))
    layer = torch.nn.Linear(_SIDE, _SIDE, bias=False).eval().requires_grad_(False)
    packed = torch.utils.mkldnn.to_mkldnn(layer, dtype)
    tokens = left.to_mkldnn()
    return (lambda: left @ right), (lambda: packed(tokens))


def _best(run: Callable[[], object]) -> float:
    """Seconds of the median of the three fastest runs: a limit is what the machine reaches undisturbed."""
    seconds = []
    for _ in range(_ROUNDS):
        begun = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - begun)
    return statistics.median(sorted(seconds)[:3])


if __name__ == "__main__":
    main()
