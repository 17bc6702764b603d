"""The engine version: measurements and compile artifacts of another version are not comparable."""

from __future__ import annotations

ENGINE_VERSION = "2"
"""Raised by one whenever a change to the engine can move a latency or a forecast."""
