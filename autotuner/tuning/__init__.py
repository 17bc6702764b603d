"""One run of one symbol, from prices to a stored decision."""
