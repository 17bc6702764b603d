"""What a GPU and its software are, and their limits: copies, matrix products by precision, launches."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from autotuner.environment import current_environment
from autotuner.machine.nvidia import gpu_state, visible_gpu
from toto_core.float32_products import EXACT, TF32, pinned


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true")
    options = parser.parse_args()
    side, count = (256, 1 << 24) if options.small else (8192, 1 << 30)
    print(f"torch {torch.__version__}, {visible_gpu()}, {gpu_state()}")
    print(current_environment(options.device))
    source = torch.empty(count, dtype=torch.uint8, device=options.device)
    target = torch.empty_like(source)
    seconds = fastest(lambda: target.copy_(source))
    print(f"copy: {2 * count / seconds / 1e12:.2f} TB/s read and written")
    for name, switches, dtype in (
        ("fp32", EXACT, torch.float32),
        ("tf32", TF32, torch.float32),
        ("bf16", EXACT, torch.bfloat16),
        ("fp16", EXACT, torch.float16),
    ):
        left = torch.randn(side, side, device=options.device, dtype=dtype)
        with pinned(switches):
            rate = 2 * side**3 / fastest(lambda left=left: left @ left)  # type: ignore[misc]
        print(f"{name}: {rate / 1e12:.1f} TFLOP/s")
    for rows in () if options.small else (8, 256):
        tokens = torch.randn(rows, 768, device=options.device, dtype=torch.bfloat16)
        weight = torch.randn(768, 6144, device=options.device, dtype=torch.bfloat16)
        sums = [
            fastest(lambda t=tokens, w=weight: t @ w, allowed=allowed)  # type: ignore[misc]
            for allowed in (False, True)
        ]
        print(
            f"{rows} x 768 x 6144 in bf16: {sums[0] * 1e6:.1f} us with sums in fp32, {sums[1] * 1e6:.1f} in bf16"
        )
    one = torch.ones(1, device=options.device)
    print(f"one kernel, launched and waited for: {fastest(lambda: one.add_(1)) * 1e6:.1f} us")


def fastest(run: Callable[[], object], *, rounds: int = 20, allowed: bool = False) -> float:
    """Seconds of the median of the three fastest runs, each waited for."""
    taken = []
    with pinned(EXACT._replace(bf16_sums=allowed)) if allowed else pinned_as_is():
        for _ in range(rounds):
            begun = time.perf_counter()
            run()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            taken.append(time.perf_counter() - begun)
    return statistics.median(sorted(taken)[:3])


def pinned_as_is() -> torch.no_grad:
    """A block that changes nothing."""
    return torch.no_grad()


if __name__ == "__main__":
    main()
