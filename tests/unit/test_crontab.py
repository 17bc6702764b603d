from __future__ import annotations

import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cronsim import CronSim
from hypothesis import assume, given
from hypothesis import strategies as st

from autotuner.daemon.crontab import (
    DEFAULT_SCHEDULE,
    END,
    START,
    TUNE_WHAT_IS_DUE,
    CrontabError,
    block_of,
    cron_line,
    find_executable,
    installed_lines,
    parse_schedule,
    store_for_cron,
    with_block,
    without_block,
)
from autotuner.errors import UsageError

EXECUTABLE = Path("/opt/tools/bin/autotune")
LOG = Path("/home/ann/.local/share/autotune/cron.log")
LINE = cron_line(schedule=DEFAULT_SCHEDULE, executable=EXECUTABLE, log=LOG)
BLOCK = block_of(LINE)


def numbers(low: int, high: int) -> st.SearchStrategy[str]:
    number = st.integers(low, high)
    ranges = st.tuples(number, number).map(sorted).map(lambda pair: f"{pair[0]}-{pair[1]}")
    item = st.one_of(st.just("*"), number.map(str), ranges, ranges.map(lambda text: f"{text}/2"))
    return st.lists(item, min_size=1, max_size=3).map(",".join)


SCHEDULES = st.tuples(
    numbers(0, 59), numbers(0, 23), numbers(1, 28), numbers(1, 12), st.one_of(numbers(0, 7), st.just("Mon"))
).map(" ".join)  # days that every month has: a 30th of February never comes, and is refused
OTHER_LINES = st.sampled_from(
    (
        "# m h dom mon dow command",
        "MAILTO=ann@example.org",
        "0 5 * * 1 tar -zcf /var/backups/home.tgz /home/",
        "5 0 * * * echo '# >>> autotune >>>'",
        "30 2 * * * /opt/tools/bin/autotune run --all --due",
        "# the line above this block had no newline at its end",
        "\r",
        "",
    )
)
ANY_TEXT = st.text(alphabet=st.characters() | st.sampled_from("\n\r\x0b\x0c\x1c\x85\u2028#>< \udcff"))
CRONTABS = st.lists(OTHER_LINES | ANY_TEXT, max_size=8).map("\n".join)


def without_marks(text: str) -> bool:
    return not any(line.strip() in {START, END} for line in text.split("\n"))


@given(text=CRONTABS, schedule=SCHEDULES)
def test_removing_what_was_installed_restores_every_byte(text: str, schedule: str) -> None:
    assume(without_marks(text))
    block = block_of(cron_line(schedule=schedule, executable=EXECUTABLE, log=LOG))
    assert without_block(with_block(text, block)) == text


@given(text=CRONTABS)
def test_installing_twice_changes_nothing_the_second_time(text: str) -> None:
    assume(without_marks(text))
    once = with_block(text, BLOCK)
    assert with_block(once, BLOCK) == once
    assert installed_lines(once) == (LINE,)
    assert once.endswith("\n")


@given(before=CRONTABS, after=CRONTABS, schedule=SCHEDULES)
def test_a_new_schedule_replaces_the_line_in_place(before: str, after: str, schedule: str) -> None:
    assume(without_marks(before) and without_marks(after))
    line = cron_line(schedule=schedule, executable=EXECUTABLE, log=LOG)
    changed = with_block(with_block(before, BLOCK) + after, block_of(line))
    assert changed == with_block(before, block_of(line)) + after
    assert installed_lines(changed) == (line,)


@given(text=CRONTABS)
def test_a_crontab_without_a_block_is_left_alone_by_removal(text: str) -> None:
    assume(without_marks(text))
    assert without_block(text) == text
    assert installed_lines(text) == ()


def test_lines_added_after_the_block_stay_lines_of_their_own() -> None:
    added = "0 6 * * * /usr/bin/second\n"
    installed = with_block("0 5 * * * /usr/bin/first", BLOCK) + added
    assert without_block(installed) == f"0 5 * * * /usr/bin/first\n{added}"


def test_a_block_copied_by_hand_is_made_one_again() -> None:
    other = "0 5 * * * /usr/bin/first\n"
    assert with_block(BLOCK + other + BLOCK, BLOCK) == BLOCK + other
    assert without_block(BLOCK + other + BLOCK) == other


def test_a_block_with_carriage_returns_is_still_ours() -> None:
    assert without_block(BLOCK.replace("\n", "\r\n")) == ""


@pytest.mark.parametrize(
    "text",
    [
        f"{START}\n{LINE}\n0 5 * * * /usr/bin/mine\n",
        f"0 5 * * * /usr/bin/mine\n{END}\n",
        f"{START}\n{LINE}\n{BLOCK}",
        f"{BLOCK}{END}\n",
        f"{END}\n{START}\n",
    ],
)
def test_a_damaged_block_is_refused_rather_than_guessed_at(text: str) -> None:
    with pytest.raises(CrontabError, match=r"damaged: line .* repair it with crontab -e"):
        with_block(text, BLOCK)
    with pytest.raises(CrontabError, match="damaged"):
        without_block(text)


def test_a_line_of_somebody_else_in_the_block_is_not_eaten() -> None:
    text = f"{START}\n{LINE}\n0 5 * * * /usr/bin/mine\n{END}\n"
    with pytest.raises(CrontabError, match="line 3 is not autotune's"):
        without_block(text)
    with pytest.raises(CrontabError, match="line 3 is not autotune's"):
        with_block(text, BLOCK)


@given(schedule=SCHEDULES)
def test_schedules_in_range_are_taken_as_they_are(schedule: str) -> None:
    assert parse_schedule(f"  {schedule.replace(' ', '  ')}\t") == schedule


@pytest.mark.parametrize(
    ("schedule", "reason"),
    [
        ("", "needs five fields"),
        ("@daily", "needs five fields"),
        ("17 3 * *", "needs five fields"),
        ("17 3 * * * root", "needs five fields"),
        ("60 3 * * *", "minute '60'"),
        ("17 24 * * *", "hour '24'"),
        ("17 3 0 * *", "day of month '0'"),
        ("17 3 * 13 *", "month '13'"),
        ("17 3 * * 8", "day of week '8'"),
        ("17 3 * * mon-fri", "day of week 'mon-fri'"),
        ("mon 3 * * *", "minute 'mon'"),
        ("9-5 3 * * *", "minute '9-5'"),
        ("*/0 3 * * *", "minute '\\*/0'"),
        ("5/10 3 * * *", "minute '5/10'"),
        ("*/75 3 * * *", "minute '\\*/75'"),
        ("007 3 * * *", "minute '007'"),
        ("17 3 jan mon *", "day of month 'jan'"),
        ("17 3 * jan,feb *", "month 'jan,feb'"),
        ("17 3 * * 1,mon", "day of week '1,mon'"),
        ("1,,2 3 * * *", "minute '1,,2'"),
        ("-1 3 * * *", "minute '-1'"),
        ("\u0661 3 * * *", "minute"),
        ("17 3 * * %", "day of week '%'"),
        ("17 3 * * *\n0 0 * * * rm -rf /", "one line of plain text"),
        ("17 3 * *\n*", "one line of plain text"),
        ("0 0 31 2 *", "would never fire"),
        ("0 0 31 4,6 *", "would never fire"),
        ("17 3 * * *\r", "one line of plain text"),
        ("17 3 * * *\x00", "one line of plain text"),
    ],
)
def test_other_schedules_are_refused_with_their_field(schedule: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason) as refusal:
        parse_schedule(schedule)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "schedule",
    ["0 0 1 1 7", "*/59 */23 */31 JAN sUn", "0-59/5,7 0,1-2 31 1 *", "0 0 29 2 *", "5-5/9 1 1 1 0"],
)
def test_names_alone_steps_and_days_that_seldom_come_are_every_crons(schedule: str) -> None:
    assert parse_schedule(schedule) == schedule


@pytest.mark.parametrize(
    "schedule",
    ["5/10 3 * * *", "*/75 3 * * *", "007 3 * * *", "17 3 L * *"]
    + [f"17 3 * * {days}" for days in ("mon-fri", "1,mon", "1L", "1#2")],
)
def test_what_cronsim_reads_and_not_every_cron_is_not_put_into_a_crontab(schedule: str) -> None:
    CronSim(schedule, datetime(2026, 1, 1, tzinfo=UTC))
    with pytest.raises(UsageError, match="is not"):
        parse_schedule(schedule)


def test_cronsim_takes_a_range_of_one_with_a_step_for_an_open_one_which_debians_cron_does_not() -> None:
    found = CronSim("5-5/10 3 * * *", datetime(2026, 1, 1, tzinfo=UTC))
    assert [next(found).minute for _ in range(3)] == [5, 15, 25]  # Debian's: 5 alone
    assert parse_schedule("5-5/10 3 * * *") == "5-5/10 3 * * *"


@given(text=st.text(alphabet=st.characters() | st.sampled_from("0123456789*,-/ \t\n"), max_size=30))
def test_whatever_is_accepted_is_five_plain_words_on_one_line(text: str) -> None:
    try:
        schedule = parse_schedule(text)
    except UsageError:
        return
    assert len(schedule.split(" ")) == 5
    assert set(schedule) <= set("0123456789*,-/ abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")


def as_cron_reads(line: str) -> str:
    """The shell command of a crontab line: after five fields, cut at the first bare %, with \\% as %."""
    command = line.split(" ", 5)[5]
    whole, _, _ = command.replace(r"\%", "\0").partition("%")
    return whole.replace("\0", "%")


@pytest.mark.parametrize("folder", ["plain", "with space", 'it\'s 5% $HOME `id` "x" & ; # ()'])
def test_the_line_calls_the_program_with_its_arguments_whatever_their_names(
    tmp_path: Path, folder: str
) -> None:
    place = tmp_path / folder
    place.mkdir()
    program, log, store = place / "autotune", place / "cron.log", str(place / "st%re.db")
    program.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\necho complaint >&2\n')
    program.chmod(0o700)
    line = cron_line(
        schedule=DEFAULT_SCHEDULE, executable=program, log=log, arguments=[*TUNE_WHAT_IS_DUE, "--db", store]
    )
    for _ in range(2):
        subprocess.run(["/bin/sh", "-c", as_cron_reads(line)], check=True, cwd=tmp_path)
    assert log.read_text() == f"run\n--all\n--due\n--db\n{store}\ncomplaint\n" * 2


def test_without_a_store_the_line_is_plain() -> None:
    assert f"17 3 * * * {EXECUTABLE} run --all --due >> {LOG} 2>&1" == LINE


@pytest.mark.parametrize("name", ["two\nlines", "re\rturn", "nul\0", "back\\slash", "tab\t", "\udcff"])
def test_a_name_no_crontab_line_can_hold_is_refused(name: str) -> None:
    with pytest.raises(CrontabError, match="no crontab line can hold"):
        cron_line(schedule=DEFAULT_SCHEDULE, executable=EXECUTABLE, log=LOG, arguments=["--db", name])


def test_cron_is_told_the_store_whenever_its_own_environment_would_name_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert store_for_cron(None, {}) is None
    assert store_for_cron(None, {"AUTOTUNE_DB": "here.db"}) == str(tmp_path / "here.db")
    assert store_for_cron("given.db", {"AUTOTUNE_DB": "here.db"}) == str(tmp_path / "given.db")
    assert store_for_cron("sqlite:////srv/a.db", {}) == "/srv/a.db"
    assert store_for_cron("postgresql+psycopg://u@h/d", {}) == "postgresql+psycopg://u@h/d"
    own = store_for_cron(None, {"XDG_DATA_HOME": str(tmp_path / "data")})
    assert own == str(tmp_path / "data" / "autotune" / "autotune.db")


def test_the_program_that_runs_is_the_one_cron_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("running", "on_path"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "autotune").write_text("#!/bin/sh\n")
        (tmp_path / folder / "autotune").chmod(0o700)
    monkeypatch.setenv("PATH", str(tmp_path / "on_path"))
    monkeypatch.chdir(tmp_path)
    assert find_executable("running/autotune") == tmp_path / "running" / "autotune"
    assert find_executable("gone/autotune") == tmp_path / "on_path" / "autotune"
    assert find_executable("/usr/bin/pytest") == tmp_path / "on_path" / "autotune"


def test_no_program_at_all_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    with pytest.raises(CrontabError, match="no such command on PATH; install the package"):
        find_executable("pytest")
