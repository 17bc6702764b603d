"""The Toto 2.0 architecture: its sizes, weights, layers, scaling and decoding, and ``Toto2Pipeline`` over them.

Importing this package imports no torch; ``Toto2Pipeline`` and ``Toto2Options`` load on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from toto_core.toto2.options import Toto2Options
    from toto_core.toto2.pipeline import Toto2Pipeline

__all__ = ["Toto2Options", "Toto2Pipeline"]

_ON_FIRST_USE = {"Toto2Options": "options", "Toto2Pipeline": "pipeline"}

if not TYPE_CHECKING:  # else mypy would believe in every name

    def __getattr__(name: str) -> Any:
        """Import torch only for whoever asks for something that needs it (PEP 562)."""
        if name not in _ON_FIRST_USE:
            raise AttributeError(f"module 'toto_core.toto2' has no attribute {name!r}")
        from importlib import import_module

        return getattr(import_module(f"toto_core.toto2.{_ON_FIRST_USE[name]}"), name)
