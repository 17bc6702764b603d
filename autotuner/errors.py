"""Errors of the tuner: each message is one line that names the thing, the reason, and what to do."""

from __future__ import annotations


class AutotuneError(Exception):
    """Something failed; the command line ends with exit code 1 and this message."""


class UsageError(AutotuneError):
    """What was asked makes no sense; the command line ends with exit code 2 and this message."""
