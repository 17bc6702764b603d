"""A compile cache from which no code can be loaded is refused before anything is compiled into it."""

from __future__ import annotations

from pathlib import Path

import pytest

from autotuner.search.profiles import profile
from autotuner.serving.artifacts import CacheRefused, compile_cache
from autotuner.store import Store
from autotuner.tuning.request import TuneRequest
from autotuner.tuning.run import tune
from autotuner.workload import Workload


class Silent:
    """Hears a run."""

    def begin(self, *_: object) -> None: ...
    def say(self, line: str) -> None: ...
    def trial(self, event: object) -> None: ...
    def still_open(self, left_open: object) -> None: ...

    def looked(self, look: object) -> None: ...


def test_a_run_ends_at_once_and_stores_nothing(
    noexec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTOTUNE_CACHE", str(noexec / "cache"))
    request = TuneRequest(symbol="AMD", workload=Workload(), profile=profile("production"), seconds=60.0)
    with Store(str(tmp_path / "autotune.db")) as store:
        with pytest.raises(CacheRefused, match=r"is mounted noexec.*AUTOTUNE_CACHE"):
            tune(request, store, Silent())
        assert store.records.runs("AMD") == ()


def test_production_is_told_to_name_another_folder(noexec: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOTUNE_CACHE", str(noexec / "cache"))
    with pytest.raises(CacheRefused, match=r"is mounted noexec.*AUTOTUNE_CACHE"):
        compile_cache("0123456789abcdef", "{}")
    assert list(noexec.iterdir()) == []
