from __future__ import annotations

from autotuner.fleet.orders import MOST_TRIES, Order, Schedule


def order(symbol: str, environment: str = "a", workload: str = "w") -> Order:
    return Order(
        symbol=symbol,
        environment=environment,
        place=environment,
        results=((workload, "production", environment),),
    )


def begun(schedule: Schedule, environment: str) -> list[str]:
    """What is begun while devices are free without end."""
    found = []
    while (one := schedule.next(environment)) is not None:
        found.append(one.symbol)
    return found


def test_the_first_of_a_group_runs_alone_and_its_proof_frees_all_others() -> None:
    schedule = Schedule([order("A"), order("B"), order("C")])

    assert begun(schedule, "a") == ["A"]
    schedule.ended(order("A"), finished=True)
    assert begun(schedule, "a") == ["B", "C"]


def test_environments_and_workloads_search_each_for_themselves() -> None:
    schedule = Schedule([order("A"), order("B"), order("A", "b"), order("C", workload="other")])

    assert begun(schedule, "a") == ["A", "C"]
    assert begun(schedule, "b") == ["A"]
    schedule.ended(order("A", "b"), finished=True)
    assert begun(schedule, "a") == []


def test_where_the_first_fails_the_next_searches_alone() -> None:
    schedule = Schedule([order("A"), order("B"), order("C")])

    schedule.next("a")
    schedule.ended(order("A"), finished=False)
    assert begun(schedule, "a") == ["B"]


def test_where_a_proof_stands_already_nobody_waits() -> None:
    assert begun(Schedule([order("A"), order("B")], [order("A").group]), "a") == ["A", "B"]


def test_a_lost_run_goes_first_again_and_no_more_than_a_few_times() -> None:
    schedule = Schedule([order("A"), order("B")])

    for _ in range(MOST_TRIES - 1):
        assert begun(schedule, "a") == ["A"]
        assert schedule.lost(order("A"))
    assert begun(schedule, "a") == ["A"]
    assert not schedule.lost(order("A"))
    assert begun(schedule, "a") == ["B"]
    schedule.ended(order("B"), finished=True)
    assert schedule.done


def test_it_is_done_when_nothing_is_left_and_nothing_under_way() -> None:
    schedule = Schedule([order("A"), order("A", "b")])

    schedule.next("a")
    assert not schedule.done
    schedule.ended(order("A"), finished=True)
    assert schedule.waiting("b") == 1
    assert schedule.given_up("b") == (order("A", "b"),)
    assert schedule.done
