"""Faults by the thousand, one table: ``make faults`` is short, ``make faults FAULTS="--long"`` what a night takes."""
