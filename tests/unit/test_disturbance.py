from __future__ import annotations

import os

from autotuner.measurement.disturbance import (
    CLOCK_DROP,
    DisturbanceWatch,
    HardwareReading,
    ReadingsSoFar,
    add_reading,
    own_processes,
    read_hardware,
)
from autotuner.measurement.outcome import Conditions, together

OWN = frozenset({1, 2})


def test_a_gpu_process_that_is_not_ours_disturbs_a_round() -> None:
    seen, disturbed = add_reading(ReadingsSoFar(), HardwareReading(gpu_processes=frozenset({1, 2, 77})), OWN)

    assert disturbed
    assert seen.foreign_gpu_processes == 1
    assert add_reading(ReadingsSoFar(), HardwareReading(gpu_processes=OWN), OWN) == (ReadingsSoFar(), False)


def test_ids_of_another_namespace_tell_nothing() -> None:
    # A container's driver names processes as the host numbers them: not even ours are among them.
    _, disturbed = add_reading(ReadingsSoFar(), HardwareReading(gpu_processes=frozenset({70, 71})), OWN)

    assert not disturbed


def test_a_clock_that_drops_disturbs_a_round_and_is_reported() -> None:
    seen, steady = add_reading(ReadingsSoFar(), HardwareReading(clock_mhz=2000.0), OWN)
    seen, dropped = add_reading(seen, HardwareReading(clock_mhz=2000.0 * CLOCK_DROP - 1), OWN)
    later, back = add_reading(seen, HardwareReading(clock_mhz=2000.0), OWN)

    assert (steady, dropped, back) == (False, True, False)
    assert later.clock_share == (2000.0 * CLOCK_DROP - 1) / 2000.0


def test_where_no_clock_can_be_read_none_is_reported() -> None:
    seen, disturbed = add_reading(ReadingsSoFar(), HardwareReading(), OWN)

    assert not disturbed
    assert seen.clock_share == 1.0


def test_what_this_machine_says_can_be_read() -> None:
    reading = read_hardware("cpu")

    assert reading.clock_mhz is None or reading.clock_mhz > 0
    assert read_hardware("cuda").gpu_processes == frozenset()
    assert os.getpid() in own_processes()


def test_a_watch_marks_a_round_whose_clock_dropped_and_says_by_how_much() -> None:
    clocks = iter((2000.0, 1000.0))
    watch = DisturbanceWatch(lambda: 0.0, lambda: HardwareReading(clock_mhz=next(clocks)))
    watch.disturbed()
    watch.start()

    assert watch.disturbed()
    assert watch.conditions(2).clock_share == 0.5


def test_the_conditions_of_several_launches_are_summed_and_the_worst_is_kept() -> None:
    quiet = Conditions(load_average=0.1, foreign_cpu_seconds=1.0, disturbed_blocks=0, blocks=24)
    busy = Conditions(
        load_average=2.0,
        foreign_cpu_seconds=3.0,
        disturbed_blocks=5,
        blocks=24,
        foreign_gpu_processes=1,
        clock_share=0.7,
    )
    both = together([quiet, busy])

    assert both == Conditions(
        load_average=2.0,
        foreign_cpu_seconds=4.0,
        disturbed_blocks=5,
        blocks=48,
        foreign_gpu_processes=1,
        clock_share=0.7,
    )
    assert str(both) == (
        "load average 2.0, 5 of 48 blocks disturbed by others, 1 foreign GPU processes, clock down to 70%"
    )
