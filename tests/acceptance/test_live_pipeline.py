"""A forecasting process that follows its symbol through promotions, in a process of its own."""

from __future__ import annotations

import json

import pytest

from autotuner.serving.follow import why_wait
from tests.support.command import Cli
from toto_core.settings import RuntimeSettings

ONE = RuntimeSettings(num_threads=1)
BF16 = ONE.replace(precision="bf16")

_PROMOTE = """
from datetime import UTC, datetime
from autotuner.environment import current_environment
from autotuner.figures import Figures
from autotuner.paths import store_location
from autotuner.store import Promotion, Store
from autotuner.workload import Workload
from toto_core.settings import RuntimeSettings

def promote(settings):
    with Store(store_location()) as store:
        store.promote(Promotion(symbol="AMD", profile="production", workload=Workload(),
            environment=current_environment(), settings=RuntimeSettings(**settings), verdict="first", reason="test",
            figures=Figures(), promoted_at=datetime.now(UTC)))
"""
_FOLLOW = (
    _PROMOTE
    + """
import json, time
import numpy as np
from autotuner.serving.follow import follow

steps = %r
promote(steps[0])
pipeline = follow("AMD", every_seconds=0.2, telemetry=False)
context = np.linspace(100, 120, 512)
first = pipeline.predict(context).median
seen = [pipeline.settings.to_dict()]
for step in steps[1:]:
    promote(step)
    switches, until = pipeline.switches, time.monotonic() + 120
    while pipeline.switches == switches and pipeline.waiting is None and time.monotonic() < until:
        pipeline.predict(context)
        time.sleep(0.01)
    seen.append(pipeline.settings.to_dict())
pipeline.close()
close = bool((first - pipeline.predict(context).median).abs().max() < 1)
print(json.dumps({"seen": seen, "waiting": pipeline.waiting, "switches": pipeline.switches, "close": close,
    "source": pipeline.last_run_metadata["settings_source"]}))
"""
)


def follow(autotune: Cli, *steps: RuntimeSettings) -> dict[str, object]:
    found: dict[str, object] = json.loads(autotune.python(_FOLLOW % [step.to_dict() for step in steps]))
    return found


def test_a_promotion_takes_over_without_a_restart(autotune: Cli) -> None:
    found = follow(autotune, ONE, BF16)

    assert found["seen"] == [ONE.to_dict(), BF16.to_dict()]
    assert (found["switches"], found["waiting"], found["close"]) == (1, None, True)
    assert found["source"] == "promotion"


def test_another_thread_count_waits_for_the_next_start_and_says_so(autotune: Cli) -> None:
    found = follow(autotune, ONE, ONE.replace(num_threads=2))

    assert found["seen"] == [ONE.to_dict(), ONE.to_dict()]
    assert found["switches"] == 0
    assert "waits for the next start" in str(found["waiting"])


@pytest.mark.parametrize(
    ("wanted", "waits"),
    [
        (BF16, False),
        (ONE.replace(compile_mode="default", freezing=True), False),
        (ONE.replace(num_threads=None), False),
        (ONE.replace(num_threads=4), True),
        (ONE.replace(compile_mode="default", compile_scope="layer"), True),
        (ONE.replace(compile_mode="default", dynamic=True), True),
    ],
)
def test_only_what_needs_no_compiling_beside_the_calls_takes_over(
    wanted: RuntimeSettings, waits: bool
) -> None:
    assert (why_wait(ONE, wanted) is not None) is waits


@pytest.mark.parametrize(
    ("wanted", "waits"),
    [(BF16, False), (RuntimeSettings(compile_mode="reduce-overhead"), True)],
)
def test_on_a_gpu_whatever_compiles_waits_for_the_next_start(wanted: RuntimeSettings, waits: bool) -> None:
    running = RuntimeSettings(num_threads=wanted.num_threads)

    assert (why_wait(running, wanted, "cuda") is not None) is waits
