from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from autotuner.measurement.outcome import Failed
from autotuner.search.pareto import pareto_front
from autotuner.search.scoring import Judged, Ranked
from tests.support.outcomes import measured, timing
from toto_core.settings import RuntimeSettings

costs = st.tuples(*[st.integers(1, 4)] * 4)


def ranked(*rows: tuple[int, int, int, int], feasible: bool = True) -> list[Ranked]:
    return [
        Ranked(
            settings=RuntimeSettings(recompile_limit=place + 1),
            outcome=measured(
                timing(float(p50), float(sigma)), drift=float(drift), cold_start_ms=float(start)
            ),
            judged=Judged(feasible=feasible, score=1.0),
        )
        for place, (p50, sigma, drift, start) in enumerate(rows)
    ]


def fronts(entries: list[Ranked]) -> list[tuple[float, ...]]:
    return [point.costs for point in pareto_front(entries, (1.0,))]


def test_what_is_beaten_in_everything_is_left_out_and_what_wins_somewhere_stays() -> None:
    assert fronts(ranked((1, 4, 4, 4), (4, 1, 4, 4), (2, 4, 4, 4), (4, 4, 4, 4))) == [
        (1, 4, 4, 4),
        (4, 1, 4, 4),
    ]


def test_failed_and_infeasible_settings_are_never_on_the_front() -> None:
    failed = Ranked(
        settings=RuntimeSettings(), outcome=Failed(kind="timeout"), judged=Judged(feasible=False, score=None)
    )
    assert fronts([failed, *ranked((1, 1, 1, 1), feasible=False)]) == []


@given(st.lists(costs, min_size=1, max_size=8))
def test_everything_off_the_front_is_equalled_or_beaten_by_something_on_it(
    rows: list[tuple[int, int, int, int]],
) -> None:
    front = fronts(ranked(*rows))

    assert len(set(front)) == len(front)
    for row in rows:
        assert any(all(a <= b for a, b in zip(point, row, strict=True)) for point in front)
    for point in front:
        others = [other for other in front if other != point]
        assert not any(all(a <= b for a, b in zip(other, point, strict=True)) for other in others)
