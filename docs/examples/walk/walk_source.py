"""A source of prices for autotune: here a random walk, in a real one a database or a vendor's client."""

import numpy as np
import pandas as pd


def fetch(wanted):
    """Called with what is wanted; gives a DataFrame with times as its index, or the path of a price file."""
    if "=" in wanted.symbol:
        raise ValueError(f"{wanted.symbol} is no symbol of mine")
    days = int(wanted.options.get("days", 750))
    times = pd.date_range("2024-01-01", periods=days, freq=wanted.interval, tz="America/New_York")
    steps = np.random.default_rng(len(wanted.symbol)).normal(0.0, 0.01, days)
    return pd.DataFrame({"close": 100.0 * np.exp(np.cumsum(steps))}, index=times)
