from __future__ import annotations

import io
from pathlib import Path

import pytest
from click.testing import CliRunner

from autotuner.cli import cli
from autotuner.errors import UsageError
from autotuner.files import read_symbols


def test_symbols_are_read_with_comments_and_each_once(tmp_path: Path) -> None:
    file = tmp_path / "watchlist.txt"
    file.write_text("amd  # chips\n\n# none\nBTCUSD\nAMD\n")

    assert read_symbols(file) == ("AMD", "BTCUSD")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_symbols_are_read_in_any_common_encoding_with_any_line_ends(tmp_path: Path, encoding: str) -> None:
    file = tmp_path / "watchlist.txt"
    file.write_bytes(
        "# Zertifikate f\u00fcr M\u00fcnchen\r\n^gspc\r\nBTC/USDT\r\nM&M.NS # India\r\n".encode(encoding)
    )

    assert read_symbols(file) == ("^GSPC", "BTC/USDT", "M&M.NS")


def test_a_dash_reads_symbols_from_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"amd\n")))
    assert read_symbols(Path("-")) == ("AMD",)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"a b\n")))
    with pytest.raises(UsageError, match=r"^standard input: line 1: 'a b' is not a symbol"):
        read_symbols(Path("-"))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"AMD\n../x\n", "line 2: '../x' is not a symbol"),
        (b"# none\n", "names no symbol"),
        (b"AMD\n\xff\n", "line 2: '\u00ff' is not a symbol"),
        (b"AMD\n\x81\n", "cannot be read: it is not text"),
    ],
)
def test_a_wrong_file_of_symbols_is_one_line_with_its_name_and_exit_code_2(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    file = tmp_path / "watchlist.txt"
    file.write_bytes(content)

    with pytest.raises(UsageError) as refusal:
        read_symbols(file)
    assert str(refusal.value).startswith(f"{file}: {reason}")

    ran = CliRunner().invoke(cli, ["run", "--symbols-file", str(file), "--db", str(tmp_path / "a.db")])
    assert ran.exit_code == 2
    assert ran.stderr.strip().splitlines() == [f"Error: {refusal.value}"]


def test_a_file_of_symbols_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read: No such file or directory"):
        read_symbols(tmp_path / "watchlist.txt")
