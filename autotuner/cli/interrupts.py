"""Sees to it that an interrupt is not lost where Python cannot raise it."""

from __future__ import annotations

import _thread
import sys
import threading

_AGAIN_SECONDS = 0.05


def heed_every_interrupt() -> None:
    """Interrupt again shortly after an interrupt that came inside a callback of Python's own.

    An exception out of a weak reference's callback, a ``__del__`` or an import lock is printed as "ignored", and a
    command that was to end would go on: ``KeyboardInterrupt`` is no exception to that
    (https://docs.python.org/3/library/sys.html#sys.unraisablehook).
    """
    sys.unraisablehook = _raise_again


def _raise_again(unraisable: sys.UnraisableHookArgs) -> None:
    if not issubclass(unraisable.exc_type, KeyboardInterrupt):
        sys.__unraisablehook__(unraisable)
        return
    # Not at once: that would be inside the same callback.
    again = threading.Timer(_AGAIN_SECONDS, _thread.interrupt_main)
    again.daemon = True
    again.start()
