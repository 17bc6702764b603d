"""``autotune export`` and ``import``: active settings as one JSON document, checked before it is stored."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from autotuner.cli.options import (
    answer,
    db_option,
    json_text,
    note,
    opened_store,
    print_json,
    refuse_own_files,
    store_options,
)
from autotuner.errors import AutotuneError, UsageError
from autotuner.paths import store_location
from autotuner.serving.strict_json import strict

if TYPE_CHECKING:
    from storage.exchange import Exchange

LARGEST_BYTES = 256 << 20
"""Of a document that is taken in: some 150,000 promotions."""


@click.command()
@click.option(
    "--output", metavar="FILE", default="-", show_default=True, help="File to write, - for standard output."
)
@db_option
def export_command(output: str, db: str | None) -> None:
    """Write the active settings and pins of all symbols as one JSON document.

    \b
    autotune export --output settings.json
    autotune export | ssh trading autotune import -
    """
    from storage.snapshot import written_aside

    place = store_location(db)
    if output != "-":
        refuse_own_files(Path(output), place)
    with opened_store(place) as store:
        document = store.records.export_document()
    if output == "-":
        print_json(document, exact=True)  # what reads it checks digests of it
    else:
        with written_aside(Path(output)) as aside:
            aside.write_text(json_text(document) + "\n", encoding="utf-8")
    counted = _counted(len(document["promotions"]), len(document["pins"]))
    note(f"exported {counted} to {'standard output' if output == '-' else output}")


@click.command()
@click.argument("file", metavar="FILE")
@store_options
def import_command(file: str, as_json: bool, db: str | None) -> None:
    """Take in FILE, which `autotune export` wrote (- for standard input): all of it or nothing.

    Every promotion in it becomes the active one of its symbol; what is active already is left alone.

    \b
    autotune import settings.json
    """
    import dataclasses

    from autotuner.record_mapping import settings_key
    from autotuner.store import Store
    from storage.errors import InvalidDocument
    from storage.exchange import parse_document

    document = _parsed(file)
    try:
        exchange = parse_document(document, validate_settings=settings_key, validate_workload=_signature)
        _check(exchange)
    except (InvalidDocument, AutotuneError) as error:
        raise AutotuneError(f"{file}: {error}; nothing was imported") from None
    place = store_location(db)
    with Store(place) as store:
        counts = store.records.import_exchange(exchange)
    said = f"{file}: everything in it is active already"
    if counts.promotions + counts.pins:
        said = f"imported {_counted(counts.promotions, counts.pins)}; `autotune list` shows them"
    answer(dataclasses.asdict(counts), said, as_json=as_json)


def _parsed(file: str) -> Any:
    try:
        with click.open_file(file, "rb") as stream:
            content = stream.read(LARGEST_BYTES + 1)
        if len(content) > LARGEST_BYTES:
            raise AutotuneError(f"{file}: is larger than {LARGEST_BYTES >> 20} MiB, which no export is")
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise AutotuneError(f"{file}: is not JSON: not UTF-8 at byte {error.start}") from None
    except OSError as error:
        reason = error.strerror or os.strerror(error.errno or 0)
        raise UsageError(f"{file}: cannot be read: {reason}") from None
    try:
        return strict(text)
    except ValueError as error:
        raise AutotuneError(f"{file}: is not JSON: {error}; nothing was imported") from None


def _signature(text: str) -> str:
    from autotuner.record_mapping import workload_signature

    try:
        return workload_signature(text)
    except (AutotuneError, TypeError) as error:
        raise ValueError(str(error)) from None


def _check(exchange: Exchange) -> None:
    """What only the tuner knows of environments and figures. Raises ``AutotuneError`` naming the field."""
    from autotuner.environment import Environment
    from autotuner.figures import FiguresError, figures_from_json

    for place, environment in enumerate(exchange.environments):
        where = f"environments[{place}]"
        try:
            fingerprint = Environment.from_dict(json.loads(environment.facts_json)).fingerprint
        except TypeError as error:
            raise AutotuneError(f"{where}: facts are refused: {error}") from None
        if fingerprint != environment.fingerprint:
            raise AutotuneError(f"{where}: fingerprint is not that of the facts, which is {fingerprint}")
    for place, promotion in enumerate(exchange.promotions):
        try:
            figures_from_json(promotion.evidence_json)
        except FiguresError as error:
            raise AutotuneError(f"promotions[{place}]: evidence is refused: {error}") from None


def _counted(promotions: int, pins: int) -> str:
    return f"{promotions} promotion{'' if promotions == 1 else 's'} and {pins} pin{'' if pins == 1 else 's'}"
