"""Starts that the version before this one stored mean the same today."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from rich.console import Console

from autotuner.environment import current_environment
from autotuner.figures import parse_figures
from autotuner.measurement.outcome import measured_from_json, measured_to_json
from autotuner.report.tables import card
from autotuner.search.profiles import profile
from autotuner.search.scoring import break_even_calls, score
from autotuner.store import Promotion
from autotuner.tuning.document import promotion_document
from autotuner.workload import Workload
from toto_core.settings import RuntimeSettings

STORED = (
    '{"timings":[{"p50_ms":2.0,"p95_ms":2.2,"sigma_ms":0.1,"calls":80,"p99_ms":null}],'
    '"reference_timings":[{"p50_ms":4.0,"p95_ms":4.0,"sigma_ms":0.0,"calls":80,"p99_ms":null}],'
    '"ratio":{"estimate":2.0,"low":2.0,"high":2.0},"cold_start_ms":27300.0,"reference_cold_start_ms":120.0,'
    '"peak_bytes":0,"accuracy":{"mae":1.0,"mae_reference":1.0,"sigma_mae":0.0,"drift":0.0,'
    '"quantile_shift":0.0,"windows":16,"seeds":2,"drift_exact":null,"quantile_shift_exact":null},'
    '"report":{"requested":false,"graphs":0,"graph_breaks":0,"recompiles":0,"recompile_limit_hit":false,'
    '"cudagraph_skips":[],"compile_seconds":0.0,"cache_hits":0,"eager_calls":0},'
    '"conditions":{"load_average":0.0,"foreign_cpu_seconds":0.0,"disturbed_blocks":0,"blocks":0,'
    '"foreign_gpu_processes":0,"clock_share":1.0},"blocks":[[[2.0,2.1]]],"reference_blocks":[],'
    '"warm_start_ms":310.0}'
)
"""What the previous version wrote of a trial that was started once more with its cache filled."""
COLD_ONLY = STORED.replace('"warm_start_ms":310.0', '"warm_start_ms":null')
ONE = Workload(calls_per_process=1_000)


@pytest.mark.parametrize(
    ("text", "start_ms", "was_warm"), [(STORED, 310.0, True), (COLD_ONLY, 27_300.0, False)]
)
def test_a_raw_measurement_keeps_its_starts_and_is_worth_the_same(
    text: str, start_ms: float, was_warm: bool
) -> None:
    outcome = measured_from_json(text)
    production = profile("production")

    assert (outcome.start_ms, outcome.was_warm, outcome.cold_start_ms) == (start_ms, was_warm, 27_300.0)
    own = 2.0 + production.sigma_weight * 0.1 + start_ms / 1_000
    assert score(outcome, ONE, production) == pytest.approx(own / (4.0 + 0.12))
    assert break_even_calls(outcome, ONE, production) == pytest.approx(
        (start_ms - 120.0) / (2.0 - production.sigma_weight * 0.1)
    )


@pytest.mark.parametrize("text", [STORED, COLD_ONLY])
def test_the_version_before_this_one_reads_what_this_one_stores(text: str) -> None:
    assert json.loads(measured_to_json(measured_from_json(text))) == json.loads(text)


@pytest.mark.parametrize(
    ("warm_start_ms", "shown"), [(310.0, "cold 27.30 s, warm 0.31 s"), (None, "cold 27.30 s")]
)
def test_evidence_of_a_promotion_keeps_its_starts(warm_start_ms: float | None, shown: str) -> None:
    evidence: dict[str, Any] = {"cold_start_ms": 27_300.0, "warm_start_ms": warm_start_ms}
    promoted = Promotion(
        symbol="AMD",
        profile="production",
        workload=ONE,
        environment=current_environment(),
        settings=RuntimeSettings(compile_mode="default"),
        verdict="first",
        reason="It takes half of the time.",
        figures=parse_figures(evidence),
        promoted_at=datetime(2026, 5, 4, tzinfo=UTC),
    )
    document = promotion_document(promoted, source="promotion")

    assert {name: document[name] for name in evidence} == evidence
    console = Console(width=200)
    with console.capture() as captured:
        console.print(card(document))
    rows = [line.split() for line in captured.get().splitlines()]
    assert ["start", *shown.split()] in rows
