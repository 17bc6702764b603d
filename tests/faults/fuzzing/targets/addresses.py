"""Store addresses: what ``--db`` and ``AUTOTUNE_DB`` name, and every path that is derived from one."""

from __future__ import annotations

from autotuner import paths
from storage.address import parse_address
from storage.errors import StoreUnavailable
from tests.faults.fuzzing import mutation
from tests.faults.fuzzing.verdicts import check, refused_with

SECONDS = 0.5
mutated = mutation.lines


def seeds() -> tuple[bytes, ...]:
    return (
        b"autotune.db",
        b"/srv/a b/autotune#1.db",
        b"~/autotune.db",
        b"sqlite:///relative.db",
        b"sqlite:////srv/autotune.db?timeout=5",
        b"file:/srv/a%20b.db?timeout=0.5",
        b"postgresql+psycopg://tuner:word@host.example:5432/autotune?sslmode=require",
        b"postgres://[::1]:5432/autotune",
        b'"sqlite:///quoted.db"\n',
        b":memory:",
    )


def one(data: bytes) -> None:
    text = data.decode("utf-8", "surrogateescape")
    with refused_with(StoreUnavailable):
        address = parse_address(text)
        check((address.path is None) != (address.url is None), "an address is a path or a URL")
        location = paths.store_location(text, {})
        check(paths.is_file(location) == (address.path is not None), "a location is what its address was")
        for derived in (paths.snapshot_path, paths.spool_folder, paths.studies_url):
            derived(location)
        again = paths.store_location(location, {})
        check(again == location, f"a location is its own: {location!a} became {again!a}")
