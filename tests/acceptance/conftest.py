from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from autotuner.store import Store
from tests.support.command import Cli
from tests.support.simulated_world import SYMBOLS, World, write_prices
from toto_core.model_files import locate


@pytest.fixture
def autotune(tmp_path: Path) -> Cli:
    return Cli(tmp_path)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    data, model = tmp_path / "prices", tmp_path / "model"
    data.mkdir()
    shutil.copytree(locate("toto-mini"), model)
    for symbol in SYMBOLS:
        write_prices(data, symbol, 1500)
    with Store(str(tmp_path / "autotune.db")) as store:
        yield World(store=store, data=data, model=model)
