"""The daemon: when and why to tune again, what is taken back, and what starts it."""
