from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from autotuner.cli import cli
from autotuner.serving.lookup import lookup
from tests.support.promoted_store import FAST

pytestmark = pytest.mark.usefixtures("no_variables")


ROOT = Path(__file__).resolve().parents[2]
COMMANDS = (
    "show",
    "list",
    "history",
    "explain",
    "selftest",
    "select",
    "rollback",
    "pin",
    "unpin",
    "export",
    "import",
    "completion",
    "studies",
)
HEAVY = {
    "alembic",
    "numpy",
    "optuna",
    "pandas",
    "psutil",
    "pyarrow",
    "pydantic",
    "rich",
    "scipy",
    "sqlalchemy",
    "sqlalchemy.dialects.postgresql",
    "sqlalchemy.orm",
    "torch",
    "torch._dynamo",
    "torch._inductor",
}
LOADED_BY = """
import atexit, sys
atexit.register(lambda: print(*sys.modules, file=sys.stderr))
from autotuner.cli import main
main(sys.argv[1:])
"""


class TestHelp:
    @pytest.mark.parametrize("name", COMMANDS)
    def test_every_command_explains_itself_with_an_example(self, name: str) -> None:
        result = CliRunner().invoke(cli, [name, "--help"], prog_name="autotune")
        assert result.exit_code == 0
        assert f"  autotune {name}" in result.stdout
        assert "--db" in result.stdout

    def test_every_command_of_the_group_explains_itself_with_an_example(self) -> None:
        group = cli.get_command(click.Context(cli), "db")
        assert isinstance(group, click.Group)
        for name in group.commands:
            result = CliRunner().invoke(cli, ["db", name, "--help"], prog_name="autotune")
            assert f"  autotune db {name}" in result.stdout
            assert "--json" in result.stdout


class TestProcess:
    @pytest.fixture
    def environ(self, place: Path) -> dict[str, str]:
        return {**os.environ, "AUTOTUNE_DB": str(place)}

    def test_json_stands_alone_on_standard_output(self, environ: dict[str, str]) -> None:
        done = _process(["show", "AMD", "--json"], environ)
        assert done.returncode == 0
        assert json.loads(done.stdout)["settings"] == FAST.to_dict()
        assert done.stderr == ""

    def test_a_refusal_is_one_line_and_an_exit_code(self, environ: dict[str, str]) -> None:
        done = _process(["rollback", "A'; DROP TABLE promotions"], environ)
        assert (done.returncode, done.stdout) == (2, "")
        assert len(done.stderr.splitlines()) == 1

    def test_export_can_be_piped_into_import(self, environ: dict[str, str], tmp_path: Path) -> None:
        out = _process(["export"], environ)
        other = {**environ, "AUTOTUNE_DB": str(tmp_path / "other.db")}
        taken = _process(["import", "-"], other, stdin=out.stdout)
        assert taken.returncode == 0, taken.stderr
        assert lookup("AMD", db=other["AUTOTUNE_DB"]).settings == FAST


class TestStart:
    """What a command loads is most of the time that it takes: one that only reads loads no more than it needs."""

    @pytest.mark.parametrize("arguments", [["show", "AMD"], ["list"], ["history"]])
    def test_a_listing_loads_the_store_and_what_draws_tables(self, place: Path, arguments: list[str]) -> None:
        assert _loaded_by([*arguments, "--db", str(place)]) == {"rich", "sqlalchemy"}
        assert _loaded_by([*arguments, "--db", str(place), "--json"]) == {"sqlalchemy"}

    def test_the_help_loads_nothing_that_takes_long(self) -> None:
        assert _loaded_by(["--help"]) == set()

    def test_a_forecast_loads_the_model_and_no_store(self, place: Path) -> None:
        loaded = _loaded_by(["forecast", "--symbol", "AMD", "--eager", "--json", "--db", str(place)])
        assert loaded == {"numpy", "pyarrow", "torch"}


def _loaded_by(arguments: list[str]) -> set[str]:
    """Which of the packages that take long to import a command loaded."""
    done = subprocess.run(
        [sys.executable, "-c", LOADED_BY, *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return HEAVY & set(done.stderr.split())


def _process(
    arguments: list[str], environ: dict[str, str], stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from autotuner.cli import main; main()", *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environ,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("arguments", [["--help"], ["list"], ["show", "AMD"]], ids=" ".join)
def test_commands_that_only_read_load_no_scipy(place: Path, arguments: list[str]) -> None:
    program = "import sys; from autotuner.cli import main; sys.argv[1:] = sys.argv[2:]; main()"
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", program, "-", *arguments],
        env=os.environ | {"AUTOTUNE_DB": str(place)},
        check=True,
        capture_output=True,
        text=True,
    )

    assert "autotuner.cli" in done.stderr
    assert "scipy" not in done.stderr
    assert done.stdout
