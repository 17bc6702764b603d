"""Searches for the best runtime settings: what may be tried, what it is worth, what to try next."""
