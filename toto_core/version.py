"""Versions of the engines: measurements and compile artifacts of another version are not comparable."""

from __future__ import annotations

ENGINE_VERSION = "2"
"""Raised by one whenever a change to the engine can move a latency or a forecast."""
TOTO2_VERSION = "1"
"""The same for Toto 2.0."""
