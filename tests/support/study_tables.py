"""A search space whose every key has a recorded answer."""

from __future__ import annotations

from autotuner.measurement.recorded import Recorded, ReplayTable
from autotuner.search.space import search_space
from autotuner.workload import Workload
from toto_core.settings import COMPILE_MODES, RuntimeSettings

WORKLOAD = Workload()
SPACE = search_space(WORKLOAD, WORKLOAD.facts(device="cpu", threads=2, patch_size=64))


def recorded(key: RuntimeSettings) -> Recorded:
    """Compiling, freezing and bf16 each buy time; frozen bf16 drifts too far."""
    latency = 100.0 - 8.0 * COMPILE_MODES.index(key.compile_mode) - 10.0 * (key.num_threads or 0)
    if key.precision == "bf16":
        latency *= 0.6
    if key.freezing:
        latency *= 0.8
    drift = 0.002 if key.precision == "bf16" else 0.0
    return Recorded(
        latency_ms=(latency,),
        sigma_ms=(1.0,),
        drift=0.04 if key.freezing and key.precision == "bf16" else drift,
        cost_s=10.0,
    )


def replay_table() -> ReplayTable:
    return ReplayTable(entries={key: recorded(key) for key in SPACE.keys}, reference=SPACE.reference)
