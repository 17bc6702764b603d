"""The one line of autotune in a crontab, in a marked block: made, put in, found and taken out; all else stays."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from cronsim import CronSim, CronSimError

from autotuner.environment import LABEL_VARIABLE
from autotuner.errors import AutotuneError, UsageError, one_line
from autotuner.paths import CACHE_VARIABLE, DATABASE_VARIABLE, is_file, store_location, store_path
from storage.masking import masked_address

START, END = "# >>> autotune >>>", "# <<< autotune <<<"
DEFAULT_SCHEDULE = "17 3 * * *"
TUNE_WHAT_IS_DUE, TICK = ("run", "--all", "--due"), ("daemon", "--once")
_TASKS = (TUNE_WHAT_IS_DUE, TICK)
_PLAIN_WORD = re.compile(r"[A-Za-z0-9_./:@=-]+")
_HINT = "# kept by `autotune cron`; what is changed here is lost"
_NO_NEWLINE = "# the line above this block had no newline at its end"
_MARK = rf"^[^\S\n]*(?:{re.escape(START)}|{re.escape(END)})[^\S\n]*$"
_BLOCK = re.compile(
    rf"^[^\S\n]*{re.escape(START)}[^\S\n]*\n(?:(?!{_MARK}).*\n)*[^\S\n]*{re.escape(END)}[^\S\n]*(?:\n|\Z)",
    re.MULTILINE,
)
_SECONDS = 30.0  # crontab only reads and writes a small file

# name, lowest and highest number: crontab(5)
_FIELDS = (
    ("minute", 0, 59),
    ("hour", 0, 23),
    ("day of month", 1, 31),
    ("month", 1, 12),
    ("day of week", 0, 7),
)
# cronsim reads more than every cron does: names in lists and ranges, 5/10, L and #
_ITEM = r"(?:\d{1,2}|(?:\*|\d{1,2}-\d{1,2})(?:/\d{1,2})?)"
_FORM = re.compile(rf"[A-Za-z]{{3}}|{_ITEM}(?:,{_ITEM})*", re.ASCII)
_ANY_DAY = datetime(2026, 1, 1, tzinfo=UTC)


class CrontabError(AutotuneError):
    """The crontab cannot be read, written or safely changed."""


def parse_schedule(text: str) -> str:
    """The five time fields of crontab(5), one space apart.

    Names stand alone, as that page asks; nicknames such as ``@daily`` are not read by every cron. Raises
    ``UsageError``.
    """
    if any(not character.isprintable() and character != "\t" for character in text):
        raise UsageError(f"schedule {text!a}: must be one line of plain text, such as {DEFAULT_SCHEDULE!r}")
    fields = text.split()
    if len(fields) != len(_FIELDS):
        raise UsageError(
            f"schedule {text!a}: needs five fields (minute, hour, day of month, month, day of week), "
            f"such as {DEFAULT_SCHEDULE!r}"
        )
    for place, (field, (name, low, high)) in enumerate(zip(fields, _FIELDS, strict=True)):
        if not _is_read(field, place, high):
            raise UsageError(
                f"schedule {text!a}: {name} {field!a} is not *, a number from {low} to {high}, a range, a list "
                "or a step of these"
            )
    try:
        next(CronSim(" ".join(fields), datetime.now(UTC)))
    except (CronSimError, StopIteration):
        raise UsageError(
            f"schedule {text!a}: names a day that no month has, so it would never fire"
        ) from None
    return " ".join(fields)


def cron_line(
    *,
    schedule: str,
    executable: Path,
    log: Path,
    arguments: Sequence[str] = TUNE_WHAT_IS_DUE,
    cache: str | None = None,
    label: str | None = None,
) -> str:
    """The crontab line: ``executable`` is called with ``arguments`` and its output appended to ``log``.

    cron has none of our variables: ``cache`` is what ``AUTOTUNE_CACHE`` is to be, None for its default, ``label``
    the environment's. Raises ``UsageError`` for a bad schedule and ``CrontabError`` for a name that no line can hold.
    """
    words = [] if cache is None else [f"{CACHE_VARIABLE}={_quoted(cache)}"]
    words += [] if label is None else [f"{LABEL_VARIABLE}={_quoted(label)}"]
    words += [_quoted(str(executable))]
    words += [word if _PLAIN_WORD.fullmatch(word) else _quoted(word) for word in arguments]
    return " ".join((parse_schedule(schedule), *words, ">>", _quoted(str(log)), "2>&1"))


def block_of(line: str) -> str:
    """The marked block that holds ``line``."""
    return "".join(f"{row}\n" for row in (START, _HINT, line, END))


def with_block(text: str, block: str) -> str:
    """The crontab ``text`` with ``block`` in place of the one it has, else at its end.

    Raises ``CrontabError`` when the marks in ``text`` are damaged or lines of others stand between them.
    """
    blocks = _blocks(text)
    if not blocks:
        return text + block if text.endswith("\n") or not text else f"{text}\n{_noting(block)}"
    first = blocks[0]
    kept = _noting(block) if _is_noted(first) else block
    return f"{text[: first.start()]}{kept}{_BLOCK.sub('', text[first.end() :])}"


def without_block(text: str) -> str:
    """The crontab ``text`` as it was before ``with_block``, byte for byte. Raises as that does."""
    blocks = _blocks(text)
    rest = _BLOCK.sub("", text)
    if blocks and blocks[-1].end() == len(text) and _is_noted(blocks[-1]):
        return rest.removesuffix("\n")
    return rest


def installed_lines(text: str) -> tuple[str, ...]:
    """The crontab lines in our block, none when there is no block. Raises as ``with_block`` does."""
    inside = (line.strip() for block in _blocks(text) for line in block[0].split("\n"))
    return tuple(line for line in inside if _acts(line))


def find_executable(argv0: str) -> Path:
    """The absolute path of ``autotune``: what is running, else on PATH, else beside this Python.

    Raises ``CrontabError``.
    """
    running = shutil.which(str(Path(argv0).absolute())) if Path(argv0).name == "autotune" else None
    beside = shutil.which(str(Path(sys.executable).with_name("autotune")))
    found = running or shutil.which("autotune") or beside
    if found is None:
        raise CrontabError("autotune: no such command on PATH; install the package with pip, then try again")
    return Path(found).absolute()


def store_for_cron(db: str | None, environ: Mapping[str, str]) -> str | None:
    """What ``--db`` must say so that cron, which has none of ``environ``, uses the same store; None: nothing.

    Raises ``UsageError`` for an address with a password: ps and cron's log show command lines.
    """
    if not (db or environ.get(DATABASE_VARIABLE) or environ.get("XDG_DATA_HOME")):
        return None
    store = store_location(db, environ)
    if masked_address(store) != store:
        raise UsageError(
            f"{masked_address(store)}: its password would stand on a command line, which ps and cron's log show: "
            "keep it in ~/.pgpass (chmod 600) and leave it out of the address"
        )
    return str(store_path(store).absolute()) if is_file(store) else store


def read_crontab() -> str:
    """The user's crontab, empty when there is none; what is not UTF-8 in it is kept as surrogates.

    Raises ``CrontabError``.
    """
    done = _crontab("-l", b"")
    if done.returncode == 0:
        return done.stdout.decode("utf-8", "surrogateescape")
    said = _one_line(done.stderr)
    # Debian, cronie and macOS say the first, BusyBox the second
    if "no crontab for" in said.lower() or "no such file or directory" in said.lower():
        return ""
    raise CrontabError(f"crontab -l failed ({said}): nothing was changed")


def write_crontab(text: str) -> None:
    """Replace the user's crontab, or remove it when nothing is left. Raises ``CrontabError``."""
    option = "-" if text else "-r"
    done = _crontab(option, text.encode("utf-8", "surrogateescape"))
    if done.returncode != 0:
        raise CrontabError(
            f"crontab {option} failed ({_one_line(done.stderr)}): the crontab is as it was before"
        )


def _crontab(option: str, given: bytes) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(
            ["crontab", option],
            input=given,
            capture_output=True,
            timeout=_SECONDS,
            check=False,
            env=os.environ | {"LC_ALL": "C"},
        )
    except FileNotFoundError:
        raise CrontabError(
            "crontab: no such command; install cron (Debian, Ubuntu: apt-get install cron; "
            "Fedora: dnf install cronie), or call `autotune run --all --due` from another scheduler"
        ) from None
    except subprocess.TimeoutExpired:
        raise CrontabError(
            f"crontab {option} did not end within {_SECONDS:.0f} s: look at it by hand"
        ) from None
    except OSError as error:
        raise CrontabError(f"crontab {option} cannot be run ({error.strerror}): check PATH") from None


def _is_read(field: str, place: int, high: int) -> bool:
    """Whether every cron reads ``field`` at this place, as cronsim does."""
    if _FORM.fullmatch(field) is None or any(int(step) > high for step in re.findall(r"/(\d+)", field)):
        return False
    fields = ["*"] * len(_FIELDS)
    fields[place] = field
    with contextlib.suppress(CronSimError):
        CronSim(" ".join(fields), _ANY_DAY)
        return True
    return False


def _quoted(name: str) -> str:
    if not name.isprintable() or "\\" in name:
        raise CrontabError(
            f"{name!a}: no crontab line can hold this name; use one without special characters"
        )
    return shlex.quote(name).replace("%", r"\%")  # cron ends a command at a bare %


def _blocks(text: str) -> list[re.Match[str]]:
    """Our blocks in a crontab. Raises ``CrontabError`` for a mark without its other, and for lines of others."""
    blocks = list(_BLOCK.finditer(text))
    for mark in re.finditer(_MARK, text, re.MULTILINE):
        if not any(block.start() <= mark.start() < block.end() for block in blocks):
            missing = END if mark[0].strip() == START else START
            raise CrontabError(
                f"the crontab's autotune block is damaged: line {_number(text, mark.start())} has no {missing!r} "
                "to go with it; repair it with crontab -e"
            )
    for block in blocks:
        for place, line in enumerate(block[0].split("\n"), start=_number(text, block.start())):
            if _acts(line.strip()) and not any(f" {' '.join(task)}" in line for task in _TASKS):
                raise CrontabError(
                    f"the crontab's line {place} is not autotune's but stands in its block: move it out "
                    "with crontab -e"
                )
    return blocks


def _number(text: str, place: int) -> int:
    return text.count("\n", 0, place) + 1


def _acts(line: str) -> bool:
    return bool(line) and not line.startswith("#")


def _is_noted(block: re.Match[str]) -> bool:
    return f"\n{_NO_NEWLINE}\n" in block[0]


def _noting(block: str) -> str:
    return block.replace(f"{START}\n", f"{START}\n{_NO_NEWLINE}\n", 1)


def _one_line(output: bytes) -> str:
    return one_line(output.decode("utf-8", "replace")) or "it gave no reason"
