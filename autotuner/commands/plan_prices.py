"""Which prices a run would find, reading as few files as the answer needs: ten milliseconds each."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from autotuner.figures import FiguresError, figures_from_json
from autotuner.machine.process import this_host
from autotuner.tuning.request import TuneRequest
from storage.records import PromotionRecord
from storage.survey import RunRow, TrialRow
from toto_core.series import SeriesError, find_series, price_files

State = Literal["read", "as measured", "changed", "not read", "unreadable"]
"""Read now; not touched since they were measured; touched since, so taken for new; nothing hangs on them; a fault."""

FEW = 200
"""Of so many symbols every price file is read."""
_AGO = timedelta(minutes=1)
"""How long a file must have been left alone before a run began that is to have read it as it is."""


@dataclass(frozen=True, kw_only=True)
class Told:
    """What is known of a symbol's prices; ``digest`` is empty where nothing was measured on them for certain."""

    state: State
    digest: str = ""
    fault: str | None = None


class Prices:
    """The prices of a plan's symbols; ``runs`` are all by id."""

    def __init__(self, *, runs: Mapping[str, RunRow], read_all: bool) -> None:
        self._runs, self._read_all = runs, read_all
        self._files = functools.cache(price_files)
        self._read = functools.cache(_read)

    def of(self, request: TuneRequest, tried: Sequence[TrialRow], champion: PromotionRecord | None) -> Told:
        """What a run would find; ``tried`` are the symbol's trials of this workload and environment."""
        source, minimum = (
            request.prices,
            request.workload.longest_context + request.workload.longest_prediction,
        )
        if self._read_all or source.path is None:
            return self._read(request.symbol, source, minimum)
        try:
            file = self._files(source.path).get(request.symbol)
        except SeriesError:
            file = None
        if file is None:
            return self._read(request.symbol, source, minimum)  # which says what is wrong
        if not tried:
            return Told(state="not read")
        digest = self._as_measured(request, tried, file, champion)
        return Told(state="as measured", digest=digest) if digest else Told(state="changed")

    def _as_measured(
        self, request: TuneRequest, tried: Sequence[TrialRow], file: Path, champion: PromotionRecord | None
    ) -> str:
        """The digest of what the promoted run read, where it read this file in the same way and as it is now."""
        run = self._runs.get(champion.run_id or "") if champion else None
        if champion is None or run is None or run.owner_host != this_host():
            return ""
        try:
            same_way = figures_from_json(champion.evidence_json).prices == request.prices
            stat = file.stat()
        except (FiguresError, OSError):
            return ""
        touched = datetime.fromtimestamp(max(stat.st_mtime, stat.st_ctime), UTC)
        digests = {row.series_digest for row in tried if row.run_id == run.run_id}
        left_alone = same_way and touched < run.started_at - _AGO
        return digests.pop() if left_alone and len(digests) == 1 else ""


def _read(symbol: str, source: object, minimum: int) -> Told:
    from toto_core.prices.options import PriceSource

    assert isinstance(source, PriceSource)
    try:
        series = find_series(symbol, source.path, minimum_points=minimum, options=source.options)
    except SeriesError as error:
        return Told(state="unreadable", fault=str(error))
    return Told(state="read", digest=series.digest)
