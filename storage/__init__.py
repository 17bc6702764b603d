"""Keeps what was measured and decided: settings, workloads and measurements as JSON text behind keys."""
