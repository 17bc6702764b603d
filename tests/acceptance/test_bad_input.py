"""What is asked wrongly or holds bad data gets one clear line, the right exit code, and changes nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

from autotuner.cli import cli
from autotuner.store import Store

HEADER = "timestamp,close\n"


def _rows(count: int, price: str = "101.5") -> str:
    return "".join(
        f"{2000 + i // 300}-{i % 300 // 25 + 1:02d}-{i % 25 + 1:02d},{price}\n" for i in range(count)
    )


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AUTOTUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    path = tmp_path / "autotune.db"
    with Store(str(path)):
        pass
    return path


def _run(store: Path, *arguments: str) -> Result:
    before = hashlib.sha256(store.read_bytes()).hexdigest()
    result = CliRunner().invoke(cli, ["run", "--db", str(store), *arguments])
    assert hashlib.sha256(store.read_bytes()).hexdigest() == before, "the store was changed"
    assert "Traceback" not in result.output
    return result


def _one_line(result: Result, code: int, *mentioned: str) -> None:
    assert result.exit_code == code, result.output
    lines = [line for line in result.stderr.splitlines() if line.strip()]
    complaint = [line for line in lines if line.startswith("Error:")]
    assert len(complaint) == 1, result.stderr
    for text in mentioned:
        assert text in complaint[0], complaint[0]
    assert result.stdout == ""


@pytest.mark.parametrize("symbol", ["../x", "A'; DROP TABLE", "", "A\n", "ß" * 40])
def test_a_symbol_that_is_none_is_refused(store: Path, symbol: str) -> None:
    result = _run(store, "--symbol", symbol)
    _one_line(result, 2, "symbol")
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("content", "mentioned"),
    [
        ("", ("AMD.csv", "empty")),
        (HEADER + _rows(5) + "2024-01-01,NaN\n", ("AMD.csv", "line 7", "NaN")),
        (HEADER + _rows(5) + "2024-01-01,-4\n", ("AMD.csv", "line 7", "-4")),
        (HEADER + _rows(5) + "2024-01-01,abc\n", ("AMD.csv", "line 7", "abc")),
        (HEADER + _rows(3), ("AMD.csv", "3", "520")),
        ("timestamp,open\n2024-01-01,4\n", ("AMD.csv", "close")),
    ],
    ids=["empty", "nan", "negative", "text", "three rows", "no close column"],
)
def test_bad_prices_are_refused_with_file_row_and_reason(
    store: Path, tmp_path: Path, content: str, mentioned: tuple[str, ...]
) -> None:
    prices = tmp_path / "AMD.csv"
    prices.write_text(content)
    _one_line(_run(store, "--symbol", "AMD", "--data", str(prices)), 1, *mentioned)


def test_a_missing_file_and_a_folder_without_the_symbol_are_named(store: Path, tmp_path: Path) -> None:
    missing = _run(store, "--symbol", "AMD", "--data", str(tmp_path / "gone.csv"))
    _one_line(missing, 2, "gone.csv")
    (tmp_path / "prices").mkdir()
    folder = _run(store, "--symbol", "AMD", "--data", str(tmp_path / "prices"))
    _one_line(folder, 1, "prices", "AMD.csv")


def _pickled(folder: Path) -> None:
    torch.save({"weights": torch.zeros(3)}, folder / "model.safetensors")


def _truncated(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])


def _without_config(folder: Path) -> None:
    (folder / "config.json").unlink()


@pytest.mark.parametrize("damage", [_pickled, _truncated, _without_config])
def test_a_model_that_cannot_be_loaded_is_named_before_anything_is_measured(
    store: Path, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    from tests.support.tiny_model import save_tiny_model

    model = save_tiny_model(tmp_path / "model")
    damage(tmp_path / "model")
    _one_line(_run(store, "--symbol", "AMD", "--model", model, "--timeout", "30"), 1, "model")


@pytest.mark.parametrize(
    "arguments",
    [
        ("--trials", "0"),
        ("--timeout", "-1"),
        ("--timeout", "0"),
        ("--profile", "fastest"),
        ("--device", "tpu"),
        ("--context-length", "0"),
        ("--num-samples", "-1"),
    ],
    ids=" ".join,
)
def test_an_option_out_of_its_range_is_bad_usage(store: Path, arguments: tuple[str, ...]) -> None:
    _one_line(_run(store, "--symbol", "AMD", *arguments), 2)


def test_no_symbol_or_two_ways_to_name_them_is_bad_usage(store: Path) -> None:
    _one_line(_run(store), 2, "--symbol")
    _one_line(_run(store, "--all", "--symbol", "AMD"), 2, "--symbol")
