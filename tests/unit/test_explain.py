from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from autotuner.commands.explain import certificate, explanation, importance
from autotuner.environment import current_environment
from autotuner.figures import Figures
from autotuner.measurement.outcome import Failed, Interval, Outcome
from autotuner.report.why import why
from autotuner.search.profiles import Limits, profile
from autotuner.search.scoring import rank
from autotuner.store import Promotion
from autotuner.workload import Workload
from tests.support.outcomes import measured, timing
from toto_core.compile_report import CompileReport
from toto_core.settings import RuntimeSettings

EAGER = RuntimeSettings()
COMPILED = EAGER.replace(compile_mode="default")
FROZEN = COMPILED.replace(freezing=True)
BF16 = FROZEN.replace(precision="bf16")
BROKEN = EAGER.replace(compile_mode="max-autotune")
WORKLOAD = Workload(calls_per_process=1_000)
REPORT = CompileReport(requested=True, graphs=2, compile_seconds=14.5)
OUTCOMES: dict[RuntimeSettings, Outcome] = {
    EAGER: measured(timing(10.0)),
    COMPILED: measured(timing(6.0), cold_start_ms=100.0),
    FROZEN: measured(timing(4.0), cold_start_ms=20_000_000.0),
    BF16: measured(timing(3.0), drift=0.2),
    BROKEN: Failed(kind="compile_error", detail="no g++"),
}


def promotion(chosen: RuntimeSettings, figures: Figures) -> Promotion:
    return Promotion(
        symbol="AMD",
        profile="production",
        workload=WORKLOAD,
        environment=current_environment(),
        settings=chosen,
        verdict="first",
        reason="it takes less time",
        figures=figures,
        promoted_at=datetime(2026, 5, 4, tzinfo=UTC),
    )


def document(
    chosen: RuntimeSettings = COMPILED, outcomes: dict[RuntimeSettings, Outcome] = OUTCOMES
) -> dict[str, Any]:
    ratio = Interval(estimate=1.6, low=1.5, high=1.7)
    found = promotion(chosen, Figures(ratio=ratio, stage="duel", compile_report=REPORT))
    return explanation(found, outcomes, profile("production"))


def test_it_names_the_second_and_everything_that_was_ruled_out_with_its_cause() -> None:
    found = document()

    assert found["second"]["settings"] == EAGER.to_dict()
    assert [point["settings"] for point in found["pareto"]] == [
        settings.to_dict() for settings in (FROZEN, COMPILED, EAGER)
    ]
    ruled_out = {entry["kind"]: entry for entry in found["ruled_out"]}
    assert ruled_out["compile_error"]["settings"] == BROKEN.to_dict()
    assert "no g++" in ruled_out["compile_error"]["reasons"][0]
    assert "drift of 20.000% is above the limit" in ruled_out["limit"]["reasons"][0]


def test_it_says_what_would_change_the_answer() -> None:
    changes = document()["changes"]

    assert any(FROZEN.label in line and "calls of a process" in line for line in changes)
    assert "profile research ranks eager fp32 first" in changes


def test_the_certificate_says_whether_it_really_compiled() -> None:
    assert document()["certificate"].startswith("really compiled: graphs 2, breaks 0")
    assert document(EAGER)["certificate"] == "runs uncompiled, as asked"


def test_importance_is_the_share_of_the_differences_that_a_field_explains() -> None:
    flat = {
        EAGER.replace(precision=precision, num_threads=threads): measured(timing(ms))
        for precision, threads, ms in (("fp32", 1, 8.0), ("fp32", 2, 4.0), ("bf16", 1, 8.0), ("bf16", 2, 4.0))
    }
    found = importance(rank(flat, WORKLOAD, profile("production"), Limits()))

    assert list(found) == ["num_threads", "precision"]
    assert found["num_threads"] > 0.99
    assert found["precision"] < 0.01
    assert importance(()) == {}


def test_people_get_every_question_answered_and_nothing_to_guess() -> None:
    from rich.console import Console

    console = Console(width=160)
    with console.capture() as capture:
        console.print(why({**document(), "launches": 5, "reproduced": 5}))
    text = capture.get()
    for question in (
        "why",
        "how sure",
        "did it compile",
        "what came second",
        "what was ruled out",
        "what matters",
    ):
        assert question in text
    assert "1.60x faster than eager fp32 [1.50, 1.70]" in text
    assert "compile_error: no g++" in text
    assert "5 of 5 launches answered a fixed request bit for bit" in text


def test_a_promotion_without_measurements_is_still_explained() -> None:
    found = document(outcomes={})

    assert found["second"] is None
    assert (found["ruled_out"], found["importance"], found["changes"], found["pareto"]) == ([], {}, [], [])
    assert why(found) is not None


def test_no_stored_report_is_said_and_not_guessed() -> None:
    assert certificate(promotion(COMPILED, Figures()), {}) == "no compile report is stored"
