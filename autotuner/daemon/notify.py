"""Tells systemd how the daemon is: ready, alive, stopping, and one line of status (sd_notify(3))."""

from __future__ import annotations

import contextlib
import os
import socket


def notify(**states: str) -> None:
    """Send ``READY="1"``, ``STATUS="..."`` and the like to the socket systemd named; without one do nothing."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    name = "\0" + address[1:] if address.startswith("@") else address
    message = "\n".join(f"{state}={_one_line(value)}" for state, value in states.items())
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.connect(name)
        sender.sendall(message.encode())


def watchdog_seconds() -> float | None:
    """How often systemd wants to hear that the daemon is alive, None when it does not."""
    try:
        return int(os.environ["WATCHDOG_USEC"]) / 2e6  # half of the limit, as sd_watchdog_enabled(3) asks
    except (KeyError, ValueError):
        return None


def _one_line(text: str) -> str:
    return " ".join(text.split())
