"""Releases for trading hosts: the snapshot and compiled code, signed, put where others fetch them, and fetched."""
