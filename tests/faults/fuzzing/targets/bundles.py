"""Documents to import: all of one or nothing, and what was taken in hurts no command, tick or lookup."""

from __future__ import annotations

import functools
import json
import random
from typing import Any

from autotuner.environment import Environment
from autotuner.paths import snapshot_path
from autotuner.store import Store
from autotuner.workload import Workload
from tests.faults.fuzzing import json_mutation, stores
from tests.faults.fuzzing.verdicts import check, check_command
from tests.support.promoted_store import FAST, promotion
from tests.support.seen_store import figures

SECONDS = 3.0


def mutated(data: bytes, chance: random.Random) -> bytes:
    """Changed, and half of the time with keys that fit, as whoever wants it taken in computes them."""
    found = json_mutation.document(data, chance)
    return _fitting(found) if chance.random() < 0.5 else found


def _fitting(data: bytes) -> bytes:
    """The same with the fingerprints and signatures of its environments and workloads, as far as they have any."""
    try:
        document = json.loads(data)
        for environment in document["environments"]:
            known = environment["fingerprint"]
            environment["fingerprint"] = Environment(**environment["facts"]).fingerprint
            _rename(document, "environment_fingerprint", known, environment["fingerprint"])
        for workload in document["workloads"]:
            known = workload["signature"]
            workload["signature"] = Workload.from_dict(workload["workload"]).signature
            _rename(document, "workload_signature", known, workload["signature"])
        return json.dumps(document).encode()
    except Exception:  # nothing that has any
        return data


def _rename(document: Any, field: str, known: object, new: str) -> None:
    for each in document["promotions"]:
        if each[field] == known:
            each[field] = new


@functools.cache
def seeds() -> tuple[bytes, ...]:
    from dataclasses import replace

    from autotuner.serving.canary import Canary
    from toto_core.settings import RuntimeSettings

    path = stores.fresh("bundles-seed")
    with Store(str(path)) as store:
        plain = store.records.export_document()
        canary = Canary(share=0.25, previous=RuntimeSettings(precision="bf16"))
        shown = replace(figures(), canary=canary, because="its weights changed", triggers=("model",))
        store.promote(replace(promotion("AMD", FAST, minutes=9), figures=shown))
        store.promote(promotion("TSLA", minutes=10))
        full = store.records.export_document()
    return tuple(json.dumps(each).encode() for each in (plain, full))


def one(data: bytes) -> None:
    put_in(data)


def put_in(data: bytes) -> float:
    """Import the bytes and look up afterwards; the longest that a lookup took."""
    from click.testing import CliRunner

    from autotuner.cli import cli

    path = stores.fresh("bundles")
    file = path.with_name("bundle.json")
    file.write_bytes(data)
    before = stores.contents(path.parent)

    def run(*arguments: str) -> bool:
        return check_command(CliRunner().invoke(cli, [*arguments, "--db", str(path)], prog_name="autotune"))

    if not run("import", str(file)):
        check(stores.contents(path.parent) == before, "a refused document changed the store")
        return 0.0
    check(snapshot_path(str(path)).exists(), "what was taken in is published")
    worst = stores.looked_up(path, "AMD", "MSFT", "TSLA")
    check(run("list"), "list goes well")
    for symbol in ("AMD", "MSFT"):
        run("show", symbol)
        run("explain", symbol)
    with Store(str(path)) as store:
        stores.ticked(store)
    return worst
