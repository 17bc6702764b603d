from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.command import Cli


@pytest.fixture
def autotune(tmp_path: Path) -> Cli:
    return Cli(tmp_path)
