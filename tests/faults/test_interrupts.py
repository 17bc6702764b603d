"""Ctrl-C ends a command wherever it comes, also where Python would print it as ignored and go on."""

from __future__ import annotations

import subprocess
import sys
import threading

from autotuner.machine.signals import set_apart

LOST = """
import signal, time, weakref

signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever this was started with
{heed}

class Thing:
    pass

thing = Thing()
gone = weakref.ref(thing, lambda _: signal.raise_signal(signal.SIGINT))
del thing
time.sleep(1)
print("went on")
"""
HEED = "from autotuner.cli.interrupts import heed_every_interrupt; heed_every_interrupt()"


def ended(heed: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", LOST.format(heed=heed)],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


def test_an_interrupt_inside_a_callback_of_pythons_own_still_ends_the_command() -> None:
    heeded, not_heeded = ended(HEED), ended("")

    assert not_heeded.stdout == "went on\n"
    assert "Exception ignored in" in not_heeded.stderr
    assert heeded.stdout == ""
    assert "Exception ignored in" not in heeded.stderr
    assert "KeyboardInterrupt" in heeded.stderr


def test_any_other_exception_there_is_told_as_python_does() -> None:
    raised = ended(HEED + "; signal.signal(signal.SIGINT, lambda *_: 1 / 0)")

    assert raised.stdout == "went on\n"
    assert "Exception ignored in" in raised.stderr
    assert "ZeroDivisionError" in raised.stderr


STOPPED_IN_A_WAIT = """
import signal, threading
from autotuner.daemon.loop import Daemon

daemon = Daemon(location="x", config_file=None, log=lambda *_, **__: None)
daemon.handle_signals()
for event in (daemon.stop, daemon.wake):
    event._cond.acquire()  # as the main thread does for a moment in each wait
signal.raise_signal(signal.SIGTERM)
for event in (daemon.stop, daemon.wake):
    event._cond.release()
print(daemon.stop.wait(10), daemon.wake.wait(10))
"""


def test_a_signal_that_comes_while_the_daemon_begins_to_wait_ends_it_all_the_same() -> None:
    done = subprocess.run(
        [sys.executable, "-c", STOPPED_IN_A_WAIT], capture_output=True, text=True, check=True, timeout=30
    )
    assert done.stdout == "True True\n"


def test_events_are_set_in_their_order() -> None:
    # the daemon looks whether it is to stop once it was woken, and then sleeps for hours
    first, second, seen = threading.Event(), threading.Event(), []
    for _ in range(200):
        first.clear()
        second.clear()
        set_apart(first, second)
        assert second.wait(10)
        seen.append(first.is_set())
    assert all(seen)
