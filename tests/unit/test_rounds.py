from __future__ import annotations

import random
import time

from autotuner.measurement.outcome import Failed
from autotuner.measurement.rounds import FEWEST_ROUNDS, Rounds
from tests.support.answering_arms import Answering, never


def _rounds(arms: list[Answering], *, shapes: int = 1, seconds: float = 60.0) -> Rounds:
    return Rounds(arms, shapes=shapes, order=random.Random(0), deadline=time.monotonic() + seconds)


def test_every_round_gives_one_block_of_every_shape_of_every_arm() -> None:
    calls: list[str] = []
    taken = _rounds([Answering("a", calls), Answering("b", calls)], shapes=2).take(5, never)
    assert [[len(shape) for shape in arm] for arm in taken.blocks] == [[5, 5], [5, 5]]
    assert taken.failed == {}
    assert taken.conditions.blocks == 5


def test_the_order_in_a_round_is_not_always_the_same() -> None:
    calls: list[str] = []
    _rounds([Answering("a", calls), Answering("b", calls)]).take(20, never)
    pairs = {tuple(calls[i : i + 2]) for i in range(0, 40, 2)}
    assert {("a0", "b0"), ("b0", "a0")} <= pairs


def test_an_arm_that_fails_ends_only_itself() -> None:
    calls: list[str] = []
    taken = _rounds([Answering("a", calls, fails_at=2), Answering("b", calls)]).take(6, never)
    assert taken.failed == {0: Failed(kind="crashed", detail="a")}
    assert len(taken.blocks[1][0]) == 6


def test_rounds_stop_when_there_is_enough() -> None:
    calls: list[str] = []
    arms = [Answering("a", calls), Answering("b", calls)]
    taken = _rounds(arms).take(50, lambda rounds, _: rounds == 7)
    assert taken.conditions.blocks == 7


def test_rounds_end_in_time_with_what_they_have_rather_than_losing_it() -> None:
    calls: list[str] = []
    arms = [Answering("a", calls, takes=0.02), Answering("b", calls, takes=0.02)]
    started = time.monotonic()
    taken = _rounds(arms, seconds=0.6).take(10_000, never)
    assert time.monotonic() - started < 5.0
    assert FEWEST_ROUNDS <= taken.conditions.blocks < 10_000
    assert len(taken.blocks[0][0]) == len(taken.blocks[1][0]) == taken.conditions.blocks
