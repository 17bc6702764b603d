"""Shows what was measured and decided."""
