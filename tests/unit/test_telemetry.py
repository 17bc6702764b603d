from __future__ import annotations

import gc
import json
import math
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotuner.serving.note_values import PER_OCTAVE
from autotuner.serving.spool import Labels
from autotuner.serving.telemetry import FILES_OF_A_PROCESS, Counts, Telemetry
from tests.support.clocks import at
from toto_core.compile_report import CompileReport

LABELS = Labels(symbol="AMD", settings_key="k", environment_fingerprint="f")
SHAPE = (512, 8, 256)


def notes(spool: Path) -> list[dict[str, object]]:
    return [json.loads(path.read_text()) for path in sorted(spool.glob("telemetry-*.json"))]


def test_calls_are_counted_with_what_compiling_did_meanwhile(tmp_path: Path) -> None:
    telemetry = Telemetry(LABELS, tmp_path, window_seconds=3600)
    telemetry.observe(
        1.0, SHAPE, CompileReport(recompiles=2)
    )  # of the warm-up: the first report is what it begins with
    telemetry.observe(2.0, SHAPE, CompileReport(recompiles=3, eager_calls=1))
    telemetry.observe(30.0, SHAPE, CompileReport(recompiles=3, eager_calls=1, recompile_limit_hit=True))
    telemetry.close()
    (note,) = notes(tmp_path)

    assert (note["kind"], note["symbol"], note["calls"], note["longest_ms"]) == ("telemetry", "AMD", 3, 30.0)
    assert (note["recompiles"], note["eager_calls"], note["limit_hits"]) == (3, 1, 1)
    assert note["shapes"] == {"512/8/256": 3}


def test_a_window_without_calls_leaves_nothing(tmp_path: Path) -> None:
    telemetry = Telemetry(LABELS, tmp_path, window_seconds=3600)
    telemetry.flush()
    telemetry.close()

    assert notes(tmp_path) == []


def test_windows_are_written_in_the_background(tmp_path: Path) -> None:
    telemetry = Telemetry(LABELS, tmp_path, window_seconds=0.02)
    telemetry.observe(1.0, SHAPE, CompileReport())
    deadline = time.monotonic() + 10.0
    while not notes(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.02)
    telemetry.close()

    assert len(notes(tmp_path)) == 1


def test_a_spool_that_nobody_empties_stays_bounded(tmp_path: Path) -> None:
    telemetry = Telemetry(LABELS, tmp_path, window_seconds=3600)
    for _ in range(FILES_OF_A_PROCESS + 9):
        telemetry.observe(1.0, SHAPE, CompileReport())
        telemetry.flush()
    telemetry.close()

    assert len(notes(tmp_path)) == FILES_OF_A_PROCESS


@pytest.mark.parametrize("latency_ms", [math.nan, -1.0, "slow", None])
def test_nothing_that_is_observed_ever_raises(tmp_path: Path, latency_ms: object) -> None:
    for spool in (tmp_path / "gone" / "\0", tmp_path):
        assert list(tmp_path.iterdir()) == []
        telemetry = Telemetry(LABELS, spool, window_seconds=3600)
        telemetry.observe(latency_ms, SHAPE, CompileReport())  # type: ignore[arg-type]
        telemetry.observe(1.0, SHAPE, None)  # type: ignore[arg-type]
        telemetry.observe(1.0, SHAPE, CompileReport())
        telemetry.flush()
        telemetry.close()
    (note,) = notes(tmp_path)

    assert (note["calls"], note["longest_ms"]) == (3 if isinstance(latency_ms, float) else 2, 1.0)


def test_a_counter_that_is_dropped_takes_its_thread_with_it(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    telemetry = Telemetry(LABELS, tmp_path, window_seconds=0.02)
    (thread,) = set(threading.enumerate()) - before
    del telemetry
    gc.collect()
    thread.join(timeout=10.0)

    assert not thread.is_alive()


@given(st.lists(st.floats(0.02, 50_000.0), min_size=1, max_size=200), st.floats(0.01, 1.0))
def test_a_quantile_of_the_histogram_is_the_true_one_or_a_bucket_above(
    milliseconds: list[float], share: float
) -> None:
    counts = Counts(begun=at(0))
    for each in milliseconds:
        counts.count(each)
    found = counts.window(LABELS, at(60)).quantile_ms(share)
    true = sorted(milliseconds)[max(0, math.ceil(share * len(milliseconds)) - 1)]

    assert true * 0.999 <= found <= true * 2 ** (1 / PER_OCTAVE) * 1.001


@given(st.floats(0.0, 1e9))
def test_every_latency_has_a_bucket(latency_ms: float) -> None:
    counts = Counts(begun=at(0))
    counts.count(latency_ms)

    assert counts.window(LABELS, at(60)).calls == 1


def test_a_quantile_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="no call"):
        Counts(begun=at(0)).window(LABELS, at(60)).quantile_ms(0.5)
