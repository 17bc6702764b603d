from __future__ import annotations

from pathlib import Path

import pytest

from autotuner.store import Store
from tests.support.promoted_store import promotion
from tests.support.storage_samples import empty_store


@pytest.fixture
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs the tests decides nothing by the variables that the commands read."""
    for name in ("AUTOTUNE_DB", "TOTO_DISABLE_COMPILE", "TOTO_COMPILE_MODE", "TOTO_COMPILE", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A store in which AMD is promoted to FAST for production."""
    path = tmp_path / "store.db"
    path.write_bytes(empty_store())
    with Store(str(path)) as store:
        store.promote(promotion())
    return path
