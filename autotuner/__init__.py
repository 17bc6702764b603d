"""autotune: finds, proves and keeps the fastest safe way to run Toto forecasts, symbol by symbol.

Importing this package loads nothing else: what it gives is loaded when it is first used, a lookup from the standard
library alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__all__ = ["Resolution", "load_pipeline", "lookup"]
__version__ = "0.1.0"

if TYPE_CHECKING:
    from autotuner.serving.lookup import Resolution, lookup
    from autotuner.serving.pipeline import load_pipeline
else:  # hidden from mypy, which would believe in every name

    def __getattr__(name: str) -> Any:
        """Load on first use (PEP 562), and keep, so that later uses cost nothing."""
        if name not in __all__:
            raise AttributeError(f"module 'autotuner' has no attribute {name!r}")
        from importlib import import_module

        module = import_module(f"autotuner.serving.{'pipeline' if name == 'load_pipeline' else 'lookup'}")
        globals()[name] = getattr(module, name)
        return globals()[name]
