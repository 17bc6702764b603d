"""autotune: finds, proves and keeps the fastest safe way to run Toto forecasts, symbol by symbol.

Importing this package loads what a lookup needs, of the standard library alone; ``load_pipeline`` loads on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from autotuner.serving.lookup import Resolution, lookup

__all__ = ["Resolution", "load_pipeline", "lookup"]
__version__ = "0.1.0"

if TYPE_CHECKING:  # by name, so that mypy still finds a name that is not there
    from autotuner.serving.pipeline import load_pipeline
else:

    def __getattr__(name: str) -> Any:
        if name != "load_pipeline":
            raise AttributeError(f"module 'autotuner' has no attribute {name!r}")
        from autotuner.serving.pipeline import load_pipeline

        return load_pipeline
