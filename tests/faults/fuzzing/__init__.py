"""Mutated bytes into everything that reads what others wrote; run by ``python -m tests.faults.fuzzing``."""
