"""Decides, on fresh measurements, whether a challenger replaces the champion of a symbol."""
