from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from autotuner.measurement.outcome import Failed, Interval, Outcome
from autotuner.search.profiles import Limits, profile
from autotuner.search.scoring import rank
from autotuner.search.search import SearchResult
from autotuner.tuning.finalists import FINALISTS, finalists, why_unfit
from autotuner.workload import Workload
from tests.support.outcomes import measured, timing
from toto_core.settings import RuntimeSettings

REFERENCE = RuntimeSettings(num_threads=1)
PLENTY = 1000.0


def settings(number: int) -> RuntimeSettings:
    return RuntimeSettings(compile_mode="default", num_threads=number)


def seen(ratio: float, spread: float = 0.05, *, drift: float = 0.0, start_ms: float = 0.0) -> Outcome:
    found = measured(timing(100.0 / ratio), drift=drift, cold_start_ms=start_ms)
    return replace(found, ratio=Interval(estimate=ratio, low=ratio * (1 - spread), high=ratio * (1 + spread)))


def study(outcomes: Mapping[RuntimeSettings, Outcome]) -> SearchResult:
    return SearchResult(
        outcomes=outcomes,
        ranked=rank(outcomes, Workload(), profile("production"), Limits(), reference=REFERENCE),
        measured=len(outcomes),
        failed={},
        reused=0,
        ended_because="settled",
    )


def test_only_settings_whose_trials_leave_it_open_go_on() -> None:
    found = study(
        {settings(1): seen(3.0), settings(2): seen(2.8), settings(3): seen(2.0), REFERENCE: seen(1.0)}
    )

    assert finalists(found, REFERENCE, seconds=PLENTY) == [settings(1), settings(2)]


def test_a_wide_interval_leaves_more_open() -> None:
    found = study({settings(1): seen(3.0, 0.3), settings(2): seen(2.8, 0.3), settings(3): seen(2.0, 0.3)})

    assert finalists(found, REFERENCE, seconds=PLENTY) == [settings(1), settings(2), settings(3)]


def test_no_more_go_on_than_there_is_room_and_time_for() -> None:
    found = study({settings(number): seen(3.0 - number / 100) for number in range(1, 9)})

    assert len(finalists(found, REFERENCE, seconds=PLENTY)) == FINALISTS
    assert len(finalists(found, REFERENCE, seconds=50.0)) == 2
    assert len(finalists(found, REFERENCE, seconds=0.0)) == 1


def test_the_reference_failures_and_what_breaks_a_limit_stay_out() -> None:
    found = study(
        {
            REFERENCE: seen(9.0),
            settings(1): Failed(kind="crashed", detail="signal 11"),
            settings(2): seen(4.0, drift=0.5),
            settings(3): seen(1.2),
        }
    )

    assert finalists(found, REFERENCE, seconds=PLENTY) == [settings(3)]
    assert finalists(study({}), REFERENCE, seconds=PLENTY) == []


def test_what_takes_long_to_start_is_judged_with_its_start() -> None:
    slow_start = seen(4.0, start_ms=2_000_000.0)  # 200 ms of each of 10,000 calls
    found = study({settings(1): seen(3.0), settings(2): slow_start})

    assert finalists(found, REFERENCE, seconds=PLENTY) == [settings(1)]


def test_a_champion_is_unfit_by_a_broken_limit_alone() -> None:
    crashed = Failed(kind="crashed", detail="signal 11")
    found = study({settings(1): seen(3.0, drift=0.5), settings(2): seen(2.0), settings(3): crashed})

    assert "drift of 50" in (why_unfit(settings(1), found) or "")
    assert [why_unfit(settings(number), found) for number in (2, 3, 4)] == [None, None, None]
