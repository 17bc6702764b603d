"""Measures runtime settings in child processes."""
