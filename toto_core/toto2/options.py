"""``Toto2Options``: how a Toto 2.0 forecast is decoded, beside the runtime settings of every model; no torch."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any


class OptionsError(ValueError):
    """The values are no options; the message is one line that names the field."""


@dataclass(frozen=True, kw_only=True)
class Toto2Options:
    """How forecasts are decoded; the names are those of the public package's ``forecast``.

    decode_block_size        time steps of a block, whole patches: longer horizons go block by block, each fed the
                             medians of the one before. 0, the default, forecasts all in one pass.
    has_missing_values       unobserved patches are hidden from attention wherever there are any; True does so where
                             there are none too, which changes no number and lets all requests share a graph.
    quantile_real_cap_k      bounds every quantile to the observed range plus so many scales of the newest patch on
                             either side; 0 bounds nothing. The package's GluonTS model uses 10,000.
    scaler_fallback_min_obs  patches before so many observations are scaled by the statistics of just these (short
                             starts); 0 for never. The package's GluonTS model uses 8.

    Raises ``OptionsError`` for a value outside its range.
    """

    decode_block_size: int = 0
    has_missing_values: bool = False
    quantile_real_cap_k: float = 0.0
    scaler_fallback_min_obs: int = 0

    def __post_init__(self) -> None:
        for name in ("decode_block_size", "scaler_fallback_min_obs"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, Integral) or not 0 <= int(value) <= 1_000_000:
                raise OptionsError(f"{name} must be a whole number from 0 to 1000000, not {value!r}")
        cap = self.quantile_real_cap_k
        if isinstance(cap, bool) or not isinstance(cap, Real) or not 0.0 <= float(cap) < math.inf:
            raise OptionsError(f"quantile_real_cap_k must be a number of at least 0, not {cap!r}")
        if not isinstance(self.has_missing_values, bool):
            raise OptionsError(f"has_missing_values must be true or false, not {self.has_missing_values!r}")

    def changed(self, **given: Any) -> Toto2Options:
        """A copy with what is given, where None stands for what is here."""
        return dataclasses.replace(
            self, **{name: value for name, value in given.items() if value is not None}
        )
