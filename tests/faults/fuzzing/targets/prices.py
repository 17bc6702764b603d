"""Price files: text in every dialect that the references hold, Parquet, and what is packed around them."""

from __future__ import annotations

import functools
import gzip
import io
import random
import zipfile
import zlib
from pathlib import Path

import numpy as np

from tests.faults.fuzzing import mutation, scratch
from tests.faults.fuzzing.verdicts import check, check_line, refused_with
from toto_core.prices.options import AS_THEY_LIE, PriceOptions, SeriesError
from toto_core.series import read_series

SECONDS = 2.0
_PRICES = Path(__file__).resolve().parents[3] / "data" / "prices"
_MOST_BYTES = 60_000
_OPTIONS = (
    *[AS_THEY_LIE] * 4,
    PriceOptions(allow_negative=True),
    PriceOptions(timezone="America/New_York"),
    PriceOptions(decimal=","),
    PriceOptions(price_column="close", time_column="1"),
)


@functools.cache
def seeds() -> tuple[bytes, ...]:
    found = [path.read_bytes() for path in sorted(_PRICES.iterdir()) if path.suffix in {".csv", ".parquet"}]
    plain = b"timestamp,close\n2024-01-01,10\n2024-01-02,11\n2024-01-03,12\n"
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr("AMD.csv", plain)
    return (
        plain,
        b'[{"timestamp": "2024-01-01", "close": 10}]',
        gzip.compress(plain, mtime=0),
        archive.getvalue(),
        *(content for content in found if len(content) <= _MOST_BYTES),
    )


def mutated(data: bytes, chance: random.Random) -> bytes:
    binary = data.startswith((b"PAR1", b"PK", b"\x1f\x8b"))
    return mutation.any_bytes(data, chance) if binary else mutation.lines(data, chance)


def one(data: bytes) -> None:
    path = scratch.folder("prices") / "AMD.csv"
    path.write_bytes(data)
    options = _OPTIONS[zlib.crc32(data) % len(_OPTIONS)]
    with refused_with(SeriesError):
        series = read_series(path, "AMD", options=options)
        check(bool(np.all(np.isfinite(series.close))), "every price is finite")
        check(options.allow_negative or bool(np.all(series.close > 0)), "every price is above zero")
        check(bool(np.all(series.timestamps[1:] > series.timestamps[:-1])), "times rise")
        check(len(series.digest) == 64, "it has a digest")
        for repair in series.repairs:
            check_line(repair, "what is said of it")
