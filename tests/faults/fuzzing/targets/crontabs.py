"""Crontab lines: schedules, and the block put into a crontab that others wrote."""

from __future__ import annotations

import random
from pathlib import Path

from autotuner.daemon import crontab
from autotuner.errors import UsageError
from tests.faults.fuzzing import mutation
from tests.faults.fuzzing.verdicts import check, refused_with

SECONDS = 0.5
_LINE = crontab.cron_line(
    schedule="17 3 * * *", executable=Path("/opt/autotune/bin/autotune"), log=Path("/var/log/a%b.log")
)
_BLOCK = crontab.block_of(_LINE)


def mutated(data: bytes, chance: random.Random) -> bytes:
    return mutation.lines(data, chance)


def seeds() -> tuple[bytes, ...]:
    return (
        b"17 3 * * *",
        b"*/5 0-23 1,15 jan mon",
        b"MAILTO=me\n# mine\n0 4 * * * /usr/bin/backup >/dev/null 2>&1\n",
        b"0 4 * * * /usr/bin/backup",
        f"0 4 * * * backup\n{_BLOCK}5 5 * * * other\n".encode(),
        crontab.with_block("0 4 * * * backup", _BLOCK).encode(),
    )


def one(data: bytes) -> None:
    text = data.decode("utf-8", "surrogateescape")
    with refused_with(UsageError):
        schedule = crontab.parse_schedule(text)
        check(crontab.parse_schedule(schedule) == schedule, "a schedule is its own")
        line = crontab.cron_line(schedule=text, executable=Path("/a/b"), log=Path("/c"))
        check("\n" not in line, "it is one line")
    with refused_with(crontab.CrontabError):
        crontab.cron_line(schedule="0 0 * * *", executable=Path(text), log=Path(f"/{text}"), cache=text)
    with refused_with(crontab.CrontabError):
        before = crontab.installed_lines(text)
        within = crontab.with_block(text, _BLOCK)
        check(crontab.installed_lines(within) == (_LINE,), "what was put in is there, once")
        check(crontab.with_block(within, _BLOCK) == within, "putting it in again changes nothing")
        if not before and crontab.START not in text:
            check(crontab.without_block(within) == text, "taken out, all is as it was")
