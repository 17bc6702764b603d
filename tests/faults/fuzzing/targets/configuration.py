"""``autotune.toml``, read and checked as the daemon does before it ticks."""

from __future__ import annotations

import random
import re
from datetime import UTC, datetime

from autotuner.daemon.config import price_arguments, read_config
from autotuner.daemon.loop import settle
from autotuner.errors import UsageError
from autotuner.web.server import parse_address
from tests.faults.fuzzing import mutation, scratch
from tests.faults.fuzzing.verdicts import refused_with

SECONDS = 1.0
_CALENDAR = re.compile(rb"calendar\s*=")


def mutated(data: bytes, chance: random.Random) -> bytes:
    return mutation.lines(data, chance)


def seeds() -> tuple[bytes, ...]:
    return (
        b'[daemon]\nschedule = "17 3 * * *"\ntimezone = "America/New_York"\njitter_seconds = 30\n'
        b'watchlist = "watchlist.txt"\nquiet = ["09:30-16:00 mon-fri", "22:00-02:00"]\nload_ceiling = 0.8\n'
        b"nice = 10\nthreads = 2\nbudget_seconds_per_day = 3600\ncool_down_hours = 6\ncanary_share = 0.25\n"
        b'run_seconds = 300\nmax_age_days = 7\nhttp = "127.0.0.1:9478"\n',
        b'[prices]\nprice_column = "close"\ntimezone = "Europe/Berlin"\ndecimal = ","\nallow_negative = true\n\n'
        b'[defaults]\nprofile = "production"\nmodel = ["toto-mini", "models/other"]\ncontext_length = 512\n\n'
        b'[symbols.AMD]\nprofile = "accuracy"\nnum_samples = 0\nconcurrency = 2\n\n'
        b'[symbols."btc/usdt"]\nmodel = "toto-mini"\ndata = "prices"\n\n'
        b'[engines.chronos2]\npython = "/opt/c/bin/python"\n',
        b"",
    )


def one(data: bytes) -> None:
    place = scratch.folder("configuration")
    (place / "watchlist.txt").write_text("AMD\n", encoding="utf-8")
    path = place / "autotune.toml"
    # the calendar of an exchange takes seconds to build: any name but a few is refused before that
    path.write_bytes(_CALENDAR.sub(b"kalender =", data))
    with refused_with(UsageError):
        settled = settle(read_config(path))
        config = settled.config
        if config.daemon.http:
            parse_address(config.daemon.http)
        now = datetime.now(UTC)
        for window in settled.quiet:
            window.holds(now)
        for symbol in (*settled.symbols, "MSFT"):
            config.of(symbol).arguments()
            price_arguments(config.prices_of(symbol))
        _ = config.pythons
