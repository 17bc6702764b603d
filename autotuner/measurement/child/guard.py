"""Limits a child process puts on itself: it dies with its parent, and it cannot allocate without bound."""

from __future__ import annotations

import os
import resource
import signal


def die_with_parent(lifeline: int) -> None:
    """Fork a watcher that kills this whole process group once the parent's end of ``lifeline`` closes.

    It is a process of its own, because a thread could not run while the worker hangs in C code; call it before
    anything heavy is imported. The group is this process's own session, compilers included.
    """
    if os.fork():
        return
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # the watcher must not hold the worker's pipes open, or its death would go unnoticed
    os.closerange(0, lifeline)
    os.closerange(lifeline + 1, os.sysconf("SC_OPEN_MAX"))
    while os.read(lifeline, 1):
        pass
    os.killpg(0, signal.SIGKILL)


def limit_memory(memory_bytes: int) -> None:
    """Let this process and its children allocate at most ``memory_bytes`` each of private writable memory."""
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = memory_bytes if hard == resource.RLIM_INFINITY else min(memory_bytes, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
