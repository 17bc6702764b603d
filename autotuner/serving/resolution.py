"""The order in which settings are looked for, as a pure decision that says why each earlier step missed."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from autotuner.errors import one_line
from autotuner.serving.canary import canary_of, previous_of
from autotuner.serving.matching import Criteria, ReadEntry, fitting, last, pinned, readable
from autotuner.workload import DEFAULT_MODEL, Workload
from storage.snapshot import Snapshot, SnapshotEntry
from toto_core import compile_config
from toto_core.settings import COMPILE_MODES, RuntimeSettings

Source = Literal[
    "kill switch", "explicit", "environment variable", "pin", "promotion", "workload winner", "default"
]
KILL_SWITCH, MODE_VARIABLE = "TOTO_DISABLE_COMPILE", "TOTO_COMPILE_MODE"
SAFE = RuntimeSettings()
DEFAULT_PROFILE = "production"


@dataclass(frozen=True, kw_only=True)
class LookupRequest(Criteria):
    """What a lookup was asked for, and the variables; ``symbol`` is None for text that is no symbol."""

    symbol: str | None
    given: str
    settings: RuntimeSettings | None
    kill_switch: str | None
    mode: str | None


@dataclass(frozen=True, kw_only=True)
class Resolution:
    """The settings a symbol is to run with, where they come from, and why each earlier step missed.

    ``model``, ``workload`` and ``profile`` are what was asked for, else what the symbol was last promoted
    for, None where nothing is known; ``since`` is the time of the pin or the promotion in ISO 8601.
    """

    symbol: str
    settings: RuntimeSettings
    source: Source
    reasons: tuple[str, ...]
    model: str
    workload: Workload | None = None
    profile: str | None = None
    since: str | None = None

    @property
    def settings_key(self) -> str:
        """The key of the settings."""
        return self.settings.key


def resolve(request: LookupRequest, snapshot: Snapshot | None, notes: tuple[str, ...]) -> Resolution:
    """The answer to ``request``; ``notes`` say why there is no symbol or no snapshot, where there is none.

    Raises ``SnapshotError`` where more of the snapshot has to be read and cannot.
    """
    promotion = _promotion(request, snapshot)
    safe = _safe(request, promotion, notes)
    if compile_config.disabled({KILL_SWITCH: request.kill_switch or ""}):
        return dataclasses.replace(safe, source="kill switch")
    safe = _missed(safe, _why_not_killed(request.kill_switch))
    if request.settings is not None:
        return dataclasses.replace(safe, settings=request.settings, source="explicit")
    safe = _missed(safe, "explicit: no settings were given")
    mode = (request.mode or "").strip()
    if mode not in COMPILE_MODES:
        return _stored(request, snapshot, promotion, _missed(safe, _why_no_mode(mode)))
    found = _stored(request, snapshot, promotion, safe)
    note = f"{MODE_VARIABLE}={mode} sets the mode alone; the rest is of the {found.source}"
    settings = found.settings.replace(compile_mode=mode)
    found = dataclasses.replace(found, settings=settings, source="environment variable")
    return _missed(found, f"environment variable: {note}")


@dataclass(frozen=True, kw_only=True)
class _Promotion:
    """The symbol's own entries: the one that fits, and the one that says what the symbol is run for."""

    found: ReadEntry | None = None
    subject: ReadEntry | None = None
    reasons: tuple[str, ...] = ()


def _promotion(request: LookupRequest, snapshot: Snapshot | None) -> _Promotion:
    if snapshot is None or request.symbol is None:
        return _Promotion()
    known, skipped = readable(snapshot.of_symbol(request.symbol), "promotion")
    known = _of_one_model(known, request)
    found, misfits = fitting(known, request, "promotion")
    subject = found or last([item for item in known if request.model in {None, item.entry.model}])
    none = f"promotion: {request.symbol} has none; run `autotune run --symbol {request.symbol}`"
    reasons = (*skipped, *misfits, *(() if known else (none,)))
    return _Promotion(found=found, subject=subject, reasons=reasons)


def _of_one_model(known: list[ReadEntry], request: LookupRequest) -> list[ReadEntry]:
    """Without a wish for one, what was promoted for the symbol's last model alone.

    Settings of another model would be faster forecasts of another kind.
    """
    latest = last(known)
    if latest is None or request.model is not None or request.workload is not None:
        return known
    return [item for item in known if item.entry.model == latest.entry.model]


def _safe(request: LookupRequest, promotion: _Promotion, notes: tuple[str, ...]) -> Resolution:
    last_run = promotion.subject
    workload = request.workload or (last_run.workload if last_run else None)
    return Resolution(
        symbol=request.symbol or request.given,
        settings=SAFE,
        source="default",
        reasons=notes,
        model=request.model or (workload.model if workload else DEFAULT_MODEL),
        workload=workload,
        profile=request.profile or (last_run.entry.profile if last_run else None),
    )


def _stored(
    request: LookupRequest, snapshot: Snapshot | None, promotion: _Promotion, safe: Resolution
) -> Resolution:
    """Pin, promotion, winner of the workload, in this order; ``safe`` when none of them fits."""
    if snapshot is None or request.symbol is None:
        return safe
    safe = _with_pin(snapshot, request.symbol, safe)
    if safe.source == "pin":
        return safe
    safe = _missed(safe, *promotion.reasons)
    known = promotion.found
    if known is None:
        return _winner(request, snapshot, safe)
    settings = known.settings
    before = previous_of(known.entry.promised_json, request.symbol)
    if before is not None:
        note = f"promotion: {settings.label} is a canary; this process stays with what ran before"
        safe, settings = _missed(safe, note), before
    since = known.entry.since.isoformat()
    return dataclasses.replace(safe, settings=settings, source="promotion", since=since)


def _with_pin(snapshot: Snapshot, symbol: str, safe: Resolution) -> Resolution:
    pin = snapshot.pin_of(symbol)
    if pin is None:
        return _missed(safe, f"pin: {symbol} has none")
    try:
        settings = pinned(pin)
    except Exception as error:  # what a damaged or newer store holds can fail in any way
        return _missed(safe, one_line(f"pin: that of {symbol} cannot be read: {error}"))
    return dataclasses.replace(safe, settings=settings, source="pin", since=pin.since.isoformat())


def _winner(request: LookupRequest, snapshot: Snapshot, safe: Resolution) -> Resolution:
    workload, step = safe.workload, "workload winner"
    if workload is None:
        return _missed(safe, f"{step}: no workload was asked for and none is known of {request.symbol}")
    signature = workload.signature
    known, skipped = _proven(snapshot.leaders(signature), step)
    if skipped:  # then the best of those that are left may be another one
        known, skipped = _proven(snapshot.of_workload(signature), step)
    profile = safe.profile or DEFAULT_PROFILE
    wanted = Criteria(model=None, workload=None, profile=profile, environment=request.environment)
    found, misfits = fitting(known, wanted, step)
    nothing = () if known or skipped else (f"{step}: none for {workload.summary}",)
    safe = _missed(safe, *skipped, *misfits, *nothing)
    if found is None:
        return safe
    since = found.entry.since.isoformat()  # its profile is the one that was wanted
    return dataclasses.replace(
        safe, settings=found.settings, source="workload winner", profile=profile, since=since
    )


def _proven(entries: Iterable[SnapshotEntry], step: str) -> tuple[list[ReadEntry], tuple[str, ...]]:
    """The entries that another symbol may run: no canaries, none that cannot be read; and why not the others."""
    known, skipped = readable(entries, step)
    proven = [item for item in known if canary_of(item.entry.promised_json) is None]
    canaries = len(known) - len(proven)
    told = (f"{step}: passed over while it is a canary: {canaries} of {len(known)}",) if canaries else ()
    return proven, (*skipped, *told)


def _missed(resolution: Resolution, *reasons: str) -> Resolution:
    return dataclasses.replace(resolution, reasons=(*resolution.reasons, *reasons))


def _why_not_killed(value: str | None) -> str:
    if value is None:
        return f"kill switch: {KILL_SWITCH} is not set"
    if not value.strip() or compile_config.switched(value) is False:
        return f"kill switch: {KILL_SWITCH} is off"
    return one_line(f"kill switch: {KILL_SWITCH}={value!a} is ignored: use 1 or 0")


def _why_no_mode(mode: str) -> str:
    if not mode:
        return f"environment variable: {MODE_VARIABLE} is not set"
    known = ", ".join(COMPILE_MODES)
    return one_line(f"environment variable: {MODE_VARIABLE}={mode!a} is ignored: known are {known}")
