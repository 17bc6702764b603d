"""``AutotunedForecaster``: sktime's forecaster, a series forecast by the settings of the symbol it is named."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
from sktime.forecasting.base import BaseForecaster

from autotuner.adapters.sampling import CONTEXT_LENGTH, NUM_SAMPLES, Floats, Tuned


class AutotunedForecaster(BaseForecaster):
    """Forecasts from the last ``context_length`` steps of what it was fitted and updated with; nothing is learned.

    ``predict`` gives the median of ``num_samples`` paths. The symbol that is looked up is ``symbol``, else the name
    of the series' first column. Several columns are forecast jointly; NaN are missing values. ``model``,
    ``profile``, ``device``, ``db`` and ``hold_compilation`` are those of ``autotuner.load_pipeline``: by default
    shapes that no tuned workload names run eagerly. Raises ``NotImplementedError`` for a horizon at or before the
    cutoff, and what ``load_pipeline`` and ``predict`` raise.

    Examples
    --------
    >>> from sktime.datasets import load_airline
    >>> from autotuner.adapters.sktime import AutotunedForecaster
    >>> forecaster = AutotunedForecaster(symbol="AMD").fit(load_airline(), fh=[1, 2, 6])
    >>> quantiles = forecaster.predict_quantiles(alpha=[0.1, 0.9])
    """

    _tags: ClassVar[dict[str, Any]] = {
        "authors": ["toto-autotune"],
        "maintainers": ["toto-autotune"],
        "python_dependencies": ["torch"],
        "y_inner_mtype": "pd.DataFrame",
        "capability:exogenous": False,
        "capability:insample": False,
        "capability:missing_values": True,
        "capability:multivariate": True,
        "capability:pred_int": True,
        "capability:pred_int:insample": False,
        "capability:update": True,
        "property:randomness": "deterministic",
        "requires-fh-in-fit": False,
    }

    def __init__(
        self,
        *,
        symbol: str | None = None,
        context_length: int = CONTEXT_LENGTH,
        num_samples: int = NUM_SAMPLES,
        model: str | None = None,
        profile: str | None = None,
        device: str = "cpu",
        db: str | None = None,
        hold_compilation: bool = True,
        seed: int = 0,
    ) -> None:
        self.symbol = symbol
        self.context_length = context_length
        self.num_samples = num_samples
        self.model = model
        self.profile = profile
        self.device = device
        self.db = db
        self.hold_compilation = hold_compilation
        self.seed = seed
        super().__init__()

    def _fit(self, y: pd.DataFrame, X: object = None, fh: object = None) -> Self:  # noqa: N803 - sktime's names
        self._history = y.iloc[-self.context_length :]
        return self

    def _update(self, y: pd.DataFrame, X: object = None, update_params: bool = True) -> Self:  # noqa: N803
        before = self._history[~self._history.index.isin(y.index)]
        return self._fit(pd.concat([before, y]).sort_index())

    def _predict(self, fh: Any, X: object) -> pd.DataFrame:  # noqa: N803
        return pd.DataFrame(
            np.median(self._draw(fh), axis=0), index=self._index(fh), columns=self._history.columns
        )

    def _predict_quantiles(self, fh: Any, X: object, alpha: Sequence[float]) -> pd.DataFrame:  # noqa: N803
        levels = np.quantile(self._draw(fh), alpha, axis=0)  # (level, time, variate)
        columns = pd.MultiIndex.from_product([self._get_varnames(), alpha])
        return pd.DataFrame(
            levels.transpose(1, 2, 0).reshape(levels.shape[1], -1), index=self._index(fh), columns=columns
        )

    def _draw(self, fh: Any) -> Floats:
        """Paths (sample, time, variate) at the steps of the horizon."""
        ahead = np.asarray(fh.to_relative(self.cutoff), dtype=int)
        if ahead.min() < 1:
            raise NotImplementedError("AutotunedForecaster: horizons must lie after the cutoff")
        tuned = Tuned(
            model=self.model,
            profile=self.profile,
            device=self.device,
            db=self.db,
            hold_compilation=self.hold_compilation,
        )
        paths = tuned.draw(
            str(self._history.columns[0]) if self.symbol is None else self.symbol,
            self._history.to_numpy().T,
            steps=int(ahead.max()),
            num_samples=self.num_samples,
            context_length=self.context_length,
            seed=self.seed,
        )
        return paths[:, ahead - 1]

    def _index(self, fh: Any) -> pd.Index:
        index: pd.Index = fh.to_absolute_index(self.cutoff)
        return index

    @classmethod
    def get_test_params(cls, parameter_set: str = "default") -> list[dict[str, Any]]:
        """Two instances for sktime's own checks, with few samples."""
        return [{"num_samples": 16, "context_length": 64}, {"num_samples": 8, "symbol": "AMD", "seed": 3}]
