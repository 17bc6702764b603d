"""Prices from outside: where they come from, what is refused of them, and the files that runs read."""
