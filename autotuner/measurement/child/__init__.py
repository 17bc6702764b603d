"""The child process of one arm, and the parent's handle of it."""
