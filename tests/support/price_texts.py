"""Reads price files that tests make up, against a clock that stands still."""

from __future__ import annotations

import numpy as np
import pytest

from toto_core.prices.options import AS_THEY_LIE, PriceOptions, SeriesError
from toto_core.prices.reading import Prices, read_prices

NOW = np.datetime64("2026-06-01T12:00:00", "ns")
GOOD_CSV = "timestamp,close\n2024-01-01,10\n2024-01-02,11\n2024-01-03,12\n"


def read(content: str | bytes, options: PriceOptions = AS_THEY_LIE, symbol: str = "AMD") -> Prices:
    """The prices in ``content``, in a file called X."""
    return read_prices(
        content.encode() if isinstance(content, str) else content, symbol, "X", options, now=NOW
    )


def refusal_of(content: str | bytes, options: PriceOptions = AS_THEY_LIE, symbol: str = "AMD") -> str:
    """The one line that ``content`` is refused with."""
    with pytest.raises(SeriesError) as refusal:
        read(content, options, symbol)
    (line,) = str(refusal.value).splitlines()
    return line


def refusal_or_sound_prices(content: bytes) -> str | None:
    """The one line of a refusal; None where prices came of it, which are sound."""
    try:
        prices = read(content)
    except SeriesError as refusal:
        (line,) = str(refusal).splitlines()
        return line
    assert prices.stamps.shape == prices.close.shape
    assert prices.stamps.size > 0
    assert np.all(prices.stamps[1:] > prices.stamps[:-1])
    assert np.all(np.isfinite(prices.close) & (prices.close > 0))
    return None


def days(prices: Prices) -> list[str]:
    """The stamps as dates."""
    return [str(stamp) for stamp in prices.stamps.astype("datetime64[D]")]
