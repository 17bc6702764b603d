"""autotune: finds, proves and keeps the fastest safe way to run Toto forecasts, symbol by symbol.

Importing this package imports neither torch, optuna, pandas, click nor SQLAlchemy.
"""

from __future__ import annotations

from autotuner.serving.lookup import Resolution, lookup
from autotuner.serving.pipeline import load_pipeline

__all__ = ["Resolution", "load_pipeline", "lookup"]
__version__ = "0.1.0"
