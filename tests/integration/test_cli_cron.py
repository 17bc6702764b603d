from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from autotuner.cli import cli
from autotuner.daemon.crontab import END, START

# A crontab command of its own, a real child process, that keeps its table in a file.
PROGRAM = """#!/bin/sh
table='{table}'
case "$1" in
    -l) [ -e "$table" ] || {{ echo "no crontab for $(id -un)" >&2; exit 1; }}; cat "$table" ;;
    -) cat > "$table" ;;
    -r) rm "$table" ;;
    *) exit 64 ;;
esac
"""
OTHERS = "MAILTO=ann@example.org\n# nightly \u2028 backup\n0 5 * * 1 /usr/bin/backup\n"


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    table = tmp_path / "table"
    install_program(tmp_path, PROGRAM.format(table=table))
    path = f"{tmp_path / 'bin'}:{Path(sys.executable).parent}:/usr/bin:/bin"
    monkeypatch.setenv("PATH", path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("AUTOTUNE_DB", raising=False)
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    return table


def install_program(tmp_path: Path, text: str) -> None:
    (tmp_path / "bin").mkdir(exist_ok=True)
    program = tmp_path / "bin" / "crontab"
    program.write_text(text)
    program.chmod(0o700)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["cron", *arguments], prog_name="autotune")


def test_show_prints_the_line_and_says_that_it_is_not_installed(table: Path, tmp_path: Path) -> None:
    result = run("show")
    assert result.exit_code == 0, result.output
    line, state = result.stdout.splitlines()
    assert line.startswith("17 3 * * * /")
    assert line.endswith(f"autotune run --all --due >> {tmp_path}/home/.local/share/autotune/cron.log 2>&1")
    assert state == "installed: no; `autotune cron install` does it"
    assert not table.exists()
    assert not (tmp_path / "home").exists()


def test_install_shows_up_once_in_the_crontab_and_in_show(table: Path, tmp_path: Path) -> None:
    table.write_text(OTHERS, encoding="utf-8")
    first, second = run("install"), run("install")
    assert (first.exit_code, second.exit_code) == (0, 0)
    assert first.stdout.splitlines()[-1] == "installed"
    assert second.stdout.splitlines()[-1] == "installed already: nothing changed"
    text = table.read_text(encoding="utf-8")
    assert text.startswith(OTHERS)
    assert text.count(START) == text.count(END) == text.count("run --all --due") == 1
    assert run("show").stdout.endswith("installed: yes\n")
    assert (tmp_path / "home/.local/share/autotune").stat().st_mode & 0o777 == 0o700


def test_a_changed_schedule_replaces_the_line_where_it_stands(table: Path) -> None:
    assert run("install").exit_code == 0
    table.write_text(table.read_text() + OTHERS, encoding="utf-8")
    result = run("show", "--schedule", "5 4 * * 1-5")
    assert "installed: another line: 17 3 * * * /" in result.stdout
    assert run("install", "--schedule", "5 4 * * 1-5").exit_code == 0
    text = table.read_text(encoding="utf-8")
    assert "\n5 4 * * 1-5 /" in text
    assert "17 3" not in text
    assert text.endswith(f"{END}\n{OTHERS}")


@pytest.mark.parametrize(
    "content", [OTHERS.encode(), b"0 5 * * * /usr/bin/x", b"# \xff caf\xe9\r\n\n\n", b"\x0b\n"]
)
def test_remove_leaves_the_rest_of_the_crontab_byte_for_byte(table: Path, content: bytes) -> None:
    table.write_bytes(content)
    assert run("install").exit_code == 0
    assert table.read_bytes() != content
    assert run("remove").stdout == "removed\n"
    assert table.read_bytes() == content
    assert run("remove").stdout == "not installed: nothing changed\n"


def test_a_crontab_that_held_only_our_line_is_gone_after_remove(table: Path) -> None:
    assert run("install").exit_code == 0
    assert table.exists()
    assert run("remove").exit_code == 0
    assert not table.exists()
    assert run("remove").stdout == "not installed: nothing changed\n"


def test_the_store_is_named_in_the_line(table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOTUNE_DB", "of 100%.db")
    monkeypatch.chdir(tmp_path)
    shown = json.loads(run("show", "--json").stdout)["line"]
    assert rf" run --all --due --db '{tmp_path}/of 100\%.db' >> " in shown
    given = json.loads(run("show", "--json", "--db", "/srv/a.db").stdout)["line"]
    assert " run --all --due --db /srv/a.db >> " in given


def test_the_label_of_the_environment_is_in_the_line(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOTUNE_ENVIRONMENT_LABEL", "rack-2")
    assert " AUTOTUNE_ENVIRONMENT_LABEL=rack-2 " in json.loads(run("show", "--json").stdout)["line"].replace(
        "'", ""
    )


def test_a_line_for_a_cluster_names_it_and_its_environments(table: Path) -> None:
    lines = run("show", "--on", "ray://head.example", "--environment", "rack-2")
    assert lines.exit_code == 0, lines.output
    assert " run --all --due --on ray://head.example --environment rack-2 " in lines.stdout
    for wrong in (("--on", "head.example"), ("--environment", "rack-2")):
        refused = run("show", *wrong)
        assert (refused.exit_code, refused.stdout, len(refused.stderr.splitlines())) == (2, "", 1)


def test_json_stands_alone_on_standard_output(table: Path) -> None:
    before = json.loads(run("show", "--json").stdout)
    installed = json.loads(run("install", "--json").stdout)
    after = json.loads(run("show", "--json").stdout)
    removed = json.loads(run("remove", "--json").stdout)
    assert (before["installed"], before["up_to_date"], before["installed_lines"]) == (False, False, [])
    assert (installed["installed"], installed["changed"]) == (True, True)
    assert (after["installed"], after["up_to_date"]) == (True, True)
    assert after["installed_lines"] == [installed["line"]] == [before["line"]]
    assert removed == {"installed": False, "changed": True}


@pytest.mark.parametrize("schedule", ["@daily", "61 * * * *", "17 3 * * *\n* * * * * /bin/evil", "% 3 * * *"])
def test_a_bad_schedule_is_bad_usage_and_changes_nothing(table: Path, schedule: str) -> None:
    table.write_text(OTHERS, encoding="utf-8")
    for command in ("show", "install"):
        result = run(command, "--schedule", schedule)
        assert result.exit_code == 2
        assert result.stdout == ""
        assert result.stderr.startswith("Error: schedule ")
        assert result.stderr.count("\n") == 1
    assert table.read_text(encoding="utf-8") == OTHERS


@pytest.mark.parametrize("command", ["show", "install", "remove"])
def test_without_a_crontab_command_one_line_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    result = run(command, "--json")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert "crontab: no such command; install cron (Debian, Ubuntu: apt-get install cron" in result.stderr


def test_a_damaged_block_is_refused_and_nothing_is_written(table: Path) -> None:
    damaged = f"{START}\n17 3 * * * autotune run --all --due\n{OTHERS}"
    table.write_text(damaged, encoding="utf-8")
    for command in ("show", "install", "remove"):
        result = run(command)
        assert result.exit_code == 1
        assert result.stderr.startswith("Error: the crontab's autotune block is damaged: line 1 has no ")
        assert result.stderr.count("\n") == 1
    assert table.read_text(encoding="utf-8") == damaged


def test_a_crontab_that_may_not_be_read_is_not_taken_for_an_empty_one(table: Path, tmp_path: Path) -> None:
    install_program(
        tmp_path, "#!/bin/sh\necho 'You (ann) are not allowed to use this program (crontab)' >&2\nexit 1\n"
    )
    result = run("install")
    assert result.exit_code == 1
    assert "crontab -l failed (You (ann) are not allowed to use this program" in result.stderr


def test_a_crontab_that_refuses_the_new_text_is_reported_in_one_line(table: Path, tmp_path: Path) -> None:
    install_program(
        tmp_path, "#!/bin/sh\n[ $1 = -l ] && exit 0\ncat >/dev/null\nprintf 'bad\\nminute\\n' >&2\nexit 1\n"
    )
    result = run("install")
    assert result.exit_code == 1
    assert result.stderr == "Error: crontab - failed (bad minute): the crontab is as it was before\n"


def test_a_log_that_could_not_be_written_is_refused_before_anything_changes(
    table: Path, tmp_path: Path
) -> None:
    (tmp_path / "home").write_text("a file")
    result = run("install")
    assert result.exit_code == 1
    assert "the folder of the log cannot be made" in result.stderr
    assert result.stderr.count("\n") == 1
    assert not table.exists()


def test_the_help_has_an_example(table: Path) -> None:
    for command in ((), ("show",), ("install",), ("remove",)):
        result = run(*command, "--help")
        assert result.exit_code == 0
        assert f"autotune cron {' '.join(command)}".strip() in result.stdout.split("Options:")[0]


def has_no_crontab() -> bool:
    if shutil.which("crontab") is None:
        return False
    found = subprocess.run(["crontab", "-l"], capture_output=True, check=False)
    return found.returncode == 1 and b"no crontab for" in found.stderr.lower()


@pytest.mark.skipif(not has_no_crontab(), reason="needs a crontab command and a user without a crontab")
def test_the_real_crontab_takes_the_block_and_gives_it_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))  # for the log; crontab goes by the user
    others = b"# of a test of autotune\n17 3 1 1 * true 'x\\%y'\n"
    try:
        subprocess.run(["crontab", "-"], input=others, check=True)
        assert run("install", "--db", "/srv/5 %.db").exit_code == 0
        assert run("show", "--db", "/srv/5 %.db").stdout.endswith("installed: yes\n")
        assert run("install", "--db", "/srv/5 %.db").stdout.endswith("nothing changed\n")
        assert run("remove").exit_code == 0
        listed = subprocess.run(["crontab", "-l"], capture_output=True, check=True)
        assert listed.stdout == others
    finally:
        subprocess.run(["crontab", "-r"], check=True)
    assert run("install").exit_code == 0
    assert run("remove").exit_code == 0
    assert has_no_crontab()
