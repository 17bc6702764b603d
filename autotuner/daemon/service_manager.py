"""Tells systemd, where it started the daemon, how that is."""

from __future__ import annotations

import contextlib
import os
import socket

from autotuner.errors import one_line


def notify(**states: str) -> None:
    """Send ``READY="1"``, ``STATUS="..."`` and the like to the socket systemd named; without one do nothing."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    name = "\0" + address[1:] if address.startswith("@") else address
    message = "\n".join(f"{state}={one_line(value)}" for state, value in states.items())
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.connect(name)
        sender.sendall(message.encode())


def watchdog_seconds() -> float | None:
    """How often systemd wants to hear that the daemon is alive, None when it does not."""
    try:
        return int(os.environ["WATCHDOG_USEC"]) / 2e6  # half of the limit, as sd_watchdog_enabled(3) asks
    except (KeyError, ValueError, OverflowError):
        return None
