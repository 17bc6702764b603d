from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotuner.measurement.outcome import Interval
from autotuner.promotion.decision import Decision, decide
from autotuner.promotion.duel_plan import VERDICTS, DuelResult
from toto_core.settings import RuntimeSettings

REFERENCE = RuntimeSettings()
CHAMPION = RuntimeSettings(compile_mode="max-autotune")
CHALLENGER = RuntimeSettings(compile_mode="default", precision="bf16", freezing=True)
FASTER = Interval(estimate=0.612, low=0.598, high=0.624)
SLOWER = Interval(estimate=-0.12, low=-0.15, high=-0.1)
LEVEL = Interval(estimate=0.004, low=-0.011, high=0.02)
UNSURE = Interval(estimate=0.04, low=-0.02, high=0.1)


def duel(
    verdict: str,
    gain: Interval | None,
    *,
    opponent: RuntimeSettings = CHAMPION,
    launches: int = 5,
    reason: str = "",
) -> DuelResult:
    return DuelResult(
        challenger=CHALLENGER,
        opponent=opponent,
        verdict=verdict,
        gain=gain,
        launches=launches,
        short_of_launches=launches < 5,
        reason=reason,
    )


def decided(result: DuelResult | None) -> Decision:
    return decide(result, champion=CHAMPION, reference=REFERENCE)


def first(result: DuelResult | None) -> Decision:
    return decide(result, champion=None, reference=REFERENCE)


def test_a_better_challenger_replaces_the_champion() -> None:
    assert decided(duel("better", FASTER)) == Decision(
        verdict="better",
        promoted=True,
        settings=CHALLENGER,
        reason="default bf16 freezing=True takes 61 % less time than max-autotune fp32 "
        "(gain 61.2 %, 95 % interval 59.8 to 62.4 %, 5 launches each).",
    )


def test_fewer_than_five_launches_are_named() -> None:
    assert "only 3 launches each" in decided(duel("better", FASTER, launches=3)).reason


@pytest.mark.parametrize(
    ("verdict", "gain", "reason"),
    [
        (
            "worse",
            SLOWER,
            "default bf16 freezing=True takes 12 % more time than max-autotune fp32 "
            "(gain -12 %, 95 % interval -15 to -10 %, 5 launches each); the champion stays.",
        ),
        (
            "same",
            LEVEL,
            "default bf16 freezing=True and max-autotune fp32 take about the same time "
            "(gain 0.4 %, 95 % interval -1.1 to 2 %, 5 launches each); the champion stays.",
        ),
        (
            "ambiguous",
            UNSURE,
            "default bf16 freezing=True is not proven faster than max-autotune fp32 "
            "(gain 4 %, 95 % interval -2 to 10 %, 5 launches each); the champion stays.",
        ),
    ],
)
def test_a_champion_that_is_not_beaten_stays(verdict: str, gain: Interval, reason: str) -> None:
    assert decided(duel(verdict, gain)) == Decision(
        verdict=verdict, promoted=False, settings=CHAMPION, reason=reason
    )


def test_a_failure_in_the_duel_is_the_reason() -> None:
    result = duel("worse", FASTER, reason="failed in the duel: crashed: signal 11")

    assert decided(result).reason == (
        "default bf16 freezing=True failed in the duel: crashed: signal 11; the champion stays."
    )


def test_a_duel_without_figures_says_why() -> None:
    why = "0 of at least 3 launches came of the duel; stage 2: the time was up after 0 launches"
    result = duel("ambiguous", None, launches=0, reason=why)

    assert decided(result).reason == (
        f"default bf16 freezing=True is not proven faster than max-autotune fp32: {why}; the champion stays."
    )


def test_without_a_challenger_the_champion_stays() -> None:
    assert decided(None) == Decision(
        verdict="same",
        promoted=False,
        settings=CHAMPION,
        reason="No challenger differs from the champion max-autotune fp32, which stays.",
    )


def test_the_first_is_the_challenger_that_beats_the_reference() -> None:
    assert first(duel("better", FASTER, opponent=REFERENCE)) == Decision(
        verdict="first",
        promoted=True,
        settings=CHALLENGER,
        reason="default bf16 freezing=True takes 61 % less time than eager fp32 "
        "(gain 61.2 %, 95 % interval 59.8 to 62.4 %, 5 launches each).",
    )


@pytest.mark.parametrize(("verdict", "gain"), [("worse", SLOWER), ("ambiguous", UNSURE)])
def test_the_first_is_the_reference_when_nothing_was_proven_faster(verdict: str, gain: Interval) -> None:
    decision = first(duel(verdict, gain, opponent=REFERENCE))

    assert (decision.verdict, decision.promoted, decision.settings) == ("first", True, REFERENCE)
    assert decision.reason.startswith(
        "Nothing was proven faster than the reference eager fp32, which is the first promoted: "
    )
    assert decision.reason.endswith("5 launches each).")


def test_of_equals_the_simpler_is_the_first() -> None:
    decision = first(duel("same", LEVEL, opponent=REFERENCE))

    assert decision.settings == REFERENCE
    assert decision.reason.endswith("; of equals the simpler, eager fp32, is the first promoted.")


def test_a_challenger_simpler_than_the_reference_is_the_first_of_equals() -> None:
    pinned = RuntimeSettings(num_threads=2)
    result = DuelResult(challenger=RuntimeSettings(), opponent=pinned, verdict="same", gain=LEVEL, launches=5)

    assert decide(result, champion=None, reference=pinned).settings == RuntimeSettings()


def test_without_a_challenger_the_reference_is_the_first() -> None:
    decision = first(None)

    assert (decision.verdict, decision.promoted, decision.settings) == ("first", True, REFERENCE)
    assert "eager fp32" in decision.reason


def test_a_duel_with_someone_else_decides_nothing() -> None:
    with pytest.raises(ValueError, match="the duel was with eager fp32, not with max-autotune fp32"):
        decided(duel("better", FASTER, opponent=REFERENCE))


@given(
    verdict=st.sampled_from(VERDICTS),
    bounds=st.tuples(*[st.floats(-1e6, 0.99)] * 3).map(sorted),
    launches=st.integers(2, 5),
    champion=st.sampled_from([CHAMPION, None]),
)
def test_only_better_brings_in_a_challenger_that_is_not_simpler(
    verdict: str, bounds: list[float], launches: int, champion: RuntimeSettings | None
) -> None:
    gain = Interval(low=bounds[0], estimate=bounds[1], high=bounds[2])
    result = duel(verdict, gain, opponent=champion or REFERENCE, launches=launches)

    decision = decide(result, champion=champion, reference=REFERENCE)

    assert (decision.settings == CHALLENGER) == (verdict == "better")
    assert decision.promoted == (champion is None or verdict == "better")
    assert decision.reason.endswith(".")
    assert "\n" not in decision.reason
