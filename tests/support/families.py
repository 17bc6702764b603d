"""Tells the processes that one test started, and theirs, from all others, by a mark in their environment."""

from __future__ import annotations

import uuid

import psutil
import pytest

_MARK = "AUTOTUNE_TEST_FAMILY"


class Family:
    """Every process started from here on until the end of the test.

    Torch keeps workers of its own in the process of the tests where earlier ones have compiled.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._mark = uuid.uuid4().hex
        monkeypatch.setenv(_MARK, self._mark)

    def alive(self) -> list[psutil.Process]:
        """Those that run now, children of children included."""
        return [one for one in psutil.Process().children(recursive=True) if self._bears_the_mark(one)]

    def anywhere(self) -> list[psutil.Process]:
        """As ``alive``, with those whose parents are gone."""
        return [one for one in psutil.process_iter() if self._bears_the_mark(one)]

    def left(self, within: float) -> list[psutil.Process]:
        """Those that still run when they were given ``within`` seconds to end."""
        alive: list[psutil.Process] = psutil.wait_procs(self.alive(), timeout=within)[1]
        return alive

    def _bears_the_mark(self, one: psutil.Process) -> bool:
        try:
            return one.environ().get(_MARK) == self._mark
        except psutil.Error:  # it has just ended
            return False
