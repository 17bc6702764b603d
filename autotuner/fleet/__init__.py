"""Runs of many symbols on the nodes of a Ray cluster; Ray runs the work, the store holds the truth."""
