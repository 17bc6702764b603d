"""Sets events from the handlers of signals, which run wherever the main thread is."""

from __future__ import annotations

import _thread
import threading


def set_apart(*events: threading.Event) -> None:
    """Set the events, in their order, in a thread of their own.

    A handler that did so itself would wait for ever where the main thread is just then waiting for the same event: it
    holds the event's lock for a moment, and goes on only when the handler has ended.
    """
    _thread.start_new_thread(_set, events)


def _set(*events: threading.Event) -> None:
    for event in events:
        event.set()
