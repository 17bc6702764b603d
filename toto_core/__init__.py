"""A compile-native implementation of the Toto 1.0 time-series transformer.

Importing this package imports neither torch nor pandas; ``TotoPipeline`` and ``Forecast`` load on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from toto_core.compile_report import CompileReport
from toto_core.settings import RuntimeSettings
from toto_core.version import ENGINE_VERSION

if TYPE_CHECKING:
    from toto_core.forecast import Forecast
    from toto_core.pipeline import TotoPipeline

__all__ = ["ENGINE_VERSION", "CompileReport", "Forecast", "RuntimeSettings", "TotoPipeline"]


_NEEDS_TORCH = {"TotoPipeline": "toto_core.pipeline", "Forecast": "toto_core.forecast"}


def __getattr__(name: str) -> Any:
    """Import the torch-dependent names only when they are asked for (PEP 562)."""
    if name not in _NEEDS_TORCH:
        raise AttributeError(f"module 'toto_core' has no attribute {name!r}")
    return getattr(import_module(_NEEDS_TORCH[name]), name)
