"""Price files: which columns are read, what their cells mean, what is refused and what is repaired."""
