"""Runs commands on a store in this process and takes their answers apart."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from autotuner.cli import cli


def run(place: Path, *arguments: str, stdin: str | None = None) -> Result:
    """A command on the store at ``place``; what it could not catch is raised here."""
    result = CliRunner().invoke(cli, [*arguments, "--db", str(place)], input=stdin, prog_name="autotune")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def document(place: Path, *arguments: str) -> dict[str, Any]:
    """What a command that succeeds answers with ``--json``."""
    result = run(place, *arguments, "--json")
    assert result.exit_code == 0, result.stderr
    return document_of(result)


def document_of(result: Result) -> dict[str, Any]:
    """The JSON document on standard output."""
    parsed: dict[str, Any] = json.loads(result.stdout)
    return parsed


def refused(result: Result, exit_code: int) -> str:
    """The one line with which a command refused."""
    assert result.exit_code == exit_code
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("Error: ")
    return lines[0]
