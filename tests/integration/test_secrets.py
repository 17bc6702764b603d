"""The password of a store's address comes out nowhere: not in errors, logs, documents or what ps shows."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
from pathlib import Path
from urllib.parse import quote

import psutil
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings

from autotuner.cli import cli
from autotuner.daemon.this_machine import ThisMachine
from autotuner.doctor.store_checks import check_password, store_checks
from autotuner.serving.lookup import lookup
from tests.support import postgres
from tests.support.command import Cli
from tests.unit.test_masking import CORE, PASSWORDS, RAW

SERVER = "127.0.0.1:1"
ADDRESSES = [
    form.replace("@host:5432", f"@{SERVER}").replace("host/db", f"{SERVER}/db").replace("@host", f"@{SERVER}")
    for form in RAW
]
COMMANDS = [
    ("list",),
    ("show", "AMD"),
    ("export",),
    ("top", "--once"),
    ("db", "check"),
    ("db", "upgrade", "--json"),
    ("studies",),
    ("cron", "show"),
    ("cron", "show", "--format", "systemd"),
    ("run", "--symbol", "AMD"),
    ("pin", "AMD", "--mode", "eager"),
    ("dashboard", "--port", "0"),
    ("recheck", "AMD"),
]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("AUTOTUNE_CACHE", str(tmp_path / "cache"))
    return tmp_path


def said(*arguments: str, variables: dict[str, str] | None = None) -> tuple[int, str, str]:
    result = CliRunner().invoke(cli, arguments, prog_name="autotune", env=variables)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr


@pytest.mark.parametrize("form", ADDRESSES)
@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(password=PASSWORDS)
def test_no_command_shows_the_password_of_its_address(home: Path, form: str, password: str) -> None:
    for written in (password, quote(password, safe="")):
        address = form.format(written)
        for code, out, err in (
            said("list", "--db", address),
            said("list", variables={"AUTOTUNE_DB": address}),
        ):
            assert code == 1
            assert CORE not in out + err
            assert len(err.splitlines()) == 1
        assert not any(CORE in reason for reason in lookup("AMD", db=address).reasons)
    assert not [path for path in home.rglob("*") if CORE in path.name]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_hides_it(home: Path, command: tuple[str, ...]) -> None:
    for form in (ADDRESSES[0], "postgresql://u@127.0.0.1:1/db?password={}", "postgres//u:{}@127.0.0.1:1/db"):
        address = form.format(f"s{CORE}%40t")
        for _, out, err in (
            said(*command, "--db", address),
            said(*command, variables={"AUTOTUNE_DB": address}),
        ):
            assert CORE not in out + err
            assert out + err


def test_a_traceback_hides_it_in_what_the_error_is_chained_to(tmp_path: Path) -> None:
    code = (
        "import sys, logging\n"
        "from autotuner.cli import cli, main\n"
        "@cli.result_callback()\n"
        "def fail(*_, **__):\n"
        "    logging.getLogger('x').warning('postgresql://u:%s@h\\x1b[2J', sys.argv[1])\n"
        "    try:\n"
        "        raise OSError('postgresql://u:' + sys.argv[1] + '@h refused')\n"
        "    except OSError as error:\n"
        "        raise KeyError('no such row') from error\n"
        "main(['config', 'example'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, CORE],
        check=False,
        capture_output=True,
        text=True,
        env=Cli(tmp_path).environment(),
    )
    assert done.returncode == 1
    assert CORE not in done.stderr
    assert "\x1b" not in done.stderr
    assert "OSError: postgresql://u:***@h refused" in done.stderr
    assert "KeyError: 'no such row'" in done.stderr


def test_a_line_of_cron_or_systemd_with_a_password_is_refused(home: Path) -> None:
    for options in ((), ("--format", "systemd"), ("--format", "systemd-timer")):
        code, out, err = said("cron", "show", *options, "--db", f"postgresql://u:{CORE}@h/db")
        assert (code, out) == (2, "")
        assert "keep it in ~/.pgpass" in err
    out = said("cron", "show", "--format", "systemd", "--db", "postgresql://u@h/db")[1]
    assert '"--db" "postgresql+psycopg://u@h/db"' in out or "postgresql+psycopg://u@h/db" in out


def test_the_doctor_hides_it_and_warns_of_one_on_the_command_line(home: Path) -> None:
    for form in ADDRESSES:
        given = form.format(f"s{CORE}%40t")
        checks = (*store_checks(given, home / "cache", "toto-mini"), *check_password(given))
        assert CORE not in "".join(f"{check.found}{check.fix}" for check in checks)
        (warning,) = check_password(given)
        assert not warning.ok
        assert warning.severity == "warning"
        assert "AUTOTUNE_DB" in warning.fix
    assert check_password(None) == check_password("a.db") == check_password("postgresql://u@h/db") == ()


def test_what_runs_for_long_warns_of_a_password_on_its_command_line(home: Path) -> None:
    given = f"postgresql://u:{CORE}@127.0.0.1:1/db"
    assert "AUTOTUNE_DB" in said("dashboard", "--port", "0", "--db", given)[2].splitlines()[0]
    assert len(said("dashboard", "--port", "0", variables={"AUTOTUNE_DB": given})[2].splitlines()) == 1


class Lines:
    """The command lines of all descendants of this process, as ``ps`` shows them to everybody."""

    def __init__(self) -> None:
        self.seen: set[str] = set()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Lines:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._ended.wait(0.02):
            for child in psutil.Process().children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    self.seen.add(" ".join(child.cmdline()))


def test_a_child_of_the_daemon_gets_the_store_by_its_environment(tmp_path: Path) -> None:
    place = str(tmp_path / f"{CORE}.db")
    machine = ThisMachine(stop=threading.Event(), nice=0, device="cpu", location=place)
    with Lines() as lines:
        found = machine.recheck(["AMD", "--device", "cpu"], seconds=60)
    assert CORE in found.cause
    assert any("daemon_child" in line for line in lines.seen)
    assert not any(CORE in line for line in lines.seen)


@pytest.mark.exhaustive
@pytest.mark.skipif(postgres.binaries() is None, reason="no PostgreSQL server is installed")
def test_no_process_of_a_tick_has_the_password_of_a_server_on_its_command_line(tmp_path: Path) -> None:
    autotune = Cli(tmp_path)
    (tmp_path / "autotune.toml").write_text(
        "[daemon]\nload_ceiling = 64.0\nrun_seconds = 40.0\nbudget_seconds_per_day = 60.0\nthreads = 1\n"
    )
    (tmp_path / "watchlist.txt").write_text("AMD\n")
    with postgres.server() as url, Lines() as lines:
        secret = url.replace("autotune@", f"autotune:{CORE}%40x@")
        variables = {"AUTOTUNE_DB": secret, "AUTOTUNE_DAEMON__WATCHLIST": str(tmp_path / "watchlist.txt")}
        done = autotune.run("daemon", "--once", extra=variables)
        listed = autotune.run("list", "--json", extra=variables)
        exported = autotune.run("export", extra=variables)
    assert done.returncode == 0, done.stderr
    assert '"event": "tuned"' in done.stderr
    assert any("measurement.child.main" in line for line in lines.seen)
    assert any("daemon_child" in line for line in lines.seen)
    assert not any(CORE in line for line in lines.seen)
    for each in (done, listed, exported):
        assert CORE not in each.stdout + each.stderr
