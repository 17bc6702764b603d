"""A compile-native implementation of the Toto 1.0 time-series transformer; that of Toto 2.0 is ``toto_core.toto2``.

Importing this package imports neither torch nor pandas; ``TotoPipeline`` and ``Forecast`` load on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from toto_core.settings import RuntimeSettings
from toto_core.version import ENGINE_VERSION

if TYPE_CHECKING:
    from toto_core.compile_report import CompileReport
    from toto_core.forecast import Forecast
    from toto_core.pipeline import TotoPipeline

__all__ = ["ENGINE_VERSION", "CompileReport", "Forecast", "RuntimeSettings", "TotoPipeline"]

_ON_FIRST_USE = {"CompileReport": "compile_report", "Forecast": "forecast", "TotoPipeline": "pipeline"}

if not TYPE_CHECKING:  # else mypy would believe in every name

    def __getattr__(name: str) -> Any:
        """Import what a lookup of settings can do without only when it is asked for (PEP 562)."""
        if name not in _ON_FIRST_USE:
            raise AttributeError(f"module 'toto_core' has no attribute {name!r}")
        from importlib import import_module

        return getattr(import_module(f"toto_core.{_ON_FIRST_USE[name]}"), name)
