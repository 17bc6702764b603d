"""Fetches the prices of symbols, each by itself: what one fails at keeps no other from its file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from autotuner.sources.answer import fetched
from autotuner.sources.price_files import Kept, keep
from autotuner.sources.protocol import SourceError, Wanted
from autotuner.sources.registry import source_named, version_of


def fetch(
    symbols: Sequence[str], wanted: Wanted, *, source: str, folder: Path, anew: bool = False
) -> tuple[tuple[Kept, ...], tuple[str, ...]]:
    """What became of each symbol's file in ``folder``, and a line for each that failed, whose file is as it was.

    Raises ``UsageError`` for a source that is not installed, ``SourceError`` for one that cannot be used.
    """
    call, version = source_named(source), version_of(source)
    kept: list[Kept] = []
    failures: list[str] = []
    for symbol in symbols:
        asked = replace(wanted, symbol=symbol)
        try:
            series = fetched(call, source, asked)
            now = datetime.now(UTC)
            kept.append(keep(folder, series, asked, source=source, version=version, now=now, replace=anew))
        except SourceError as error:
            failures.append(str(error))
    return tuple(kept), tuple(failures)
