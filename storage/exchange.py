"""Turns active promotions and pins into one JSON document and back, checked before any of it is stored."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

from storage.errors import InvalidDocument, InvalidRecord, StoreCorrupt
from storage.records import EnvironmentRecord, PinRecord, PromotionRecord, Record, WorkloadRecord

FORMAT = "autotune settings"
VERSION = 1

Validator = Callable[[str], str]
RecordT = TypeVar("RecordT", bound=Record)

_PROMOTION_TEXTS = (
    "symbol",
    "profile",
    "model",
    "workload_signature",
    "environment_fingerprint",
    "verdict",
    "reason",
)


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """What a document carries: active promotions, oldest first, pins, and what they refer to."""

    environments: tuple[EnvironmentRecord, ...]
    workloads: tuple[WorkloadRecord, ...]
    promotions: tuple[PromotionRecord, ...]
    pins: tuple[PinRecord, ...]


def build_document(exchange: Exchange) -> dict[str, Any]:
    """The document, ready for `json.dumps`. Raises `StoreCorrupt` when a record's JSON text is none."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "environments": [
            {
                "fingerprint": environment.fingerprint,
                "facts": _parsed(environment.facts_json),
                "first_seen": _time_text(environment.first_seen),
            }
            for environment in exchange.environments
        ],
        "workloads": [
            {
                "signature": workload.signature,
                "workload": _parsed(workload.workload_json),
                "first_seen": _time_text(workload.first_seen),
            }
            for workload in exchange.workloads
        ],
        "promotions": [_promotion_out(promotion) for promotion in exchange.promotions],
        "pins": [
            {
                "symbol": pin.symbol,
                "settings_key": pin.settings_key,
                "settings": _parsed(pin.settings_json),
                "reason": pin.reason,
                "pinned_at": _time_text(pin.pinned_at),
            }
            for pin in exchange.pins
        ],
    }


def parse_document(
    document: object, *, validate_settings: Validator, validate_workload: Validator | None = None
) -> Exchange:
    """What the document carries; settings get the key that `validate_settings` gives for their JSON text.

    `validate_workload`, if given, returns the signature of a workload's JSON text; it must be the document's.
    Both raise ValueError for what they refuse. Raises `InvalidDocument` naming the field.
    """
    top = _Fields(document, "the document")
    if top.text("format") != FORMAT or top.value("version") != VERSION:
        raise InvalidDocument(
            f"the document is not version {VERSION} of {FORMAT!r}: export it with this version"
        )
    exchange = Exchange(
        environments=tuple(_environment_in(fields) for fields in top.each("environments")),
        workloads=tuple(_workload_in(fields, validate_workload) for fields in top.each("workloads")),
        promotions=tuple(_promotion_in(fields, validate_settings) for fields in top.each("promotions")),
        pins=tuple(_pin_in(fields, validate_settings) for fields in top.each("pins")),
    )
    _check_references(exchange)
    return exchange


class _Fields:
    """One JSON object of the document, and where it is."""

    def __init__(self, value: object, where: str) -> None:
        if not isinstance(value, dict):
            raise InvalidDocument(f"{where} is not a JSON object")
        self._value: dict[object, object] = value
        self.where = where

    def value(self, name: str) -> object:
        if name not in self._value:
            raise InvalidDocument(f"{self.where} lacks the field {name}")
        return self._value[name]

    def text(self, name: str) -> str:
        value = self.value(name)
        if not isinstance(value, str):
            raise InvalidDocument(f"{self.where}: {name} is not text")
        return value

    def time(self, name: str) -> datetime:
        text = self.text(name)
        try:
            return datetime.fromisoformat(text)
        except ValueError:
            raise InvalidDocument(f"{self.where}: {name} {text!r} is not an ISO 8601 time") from None

    def json(self, name: str) -> str:
        try:
            return json.dumps(self.value(name), sort_keys=True, separators=(",", ":"), allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise InvalidDocument(f"{self.where}: {name} is not plain JSON: {error}") from error

    def settings(self, validate: Validator) -> tuple[str, str]:
        text = self.json("settings")
        try:
            return validate(text), text
        except ValueError as error:
            raise InvalidDocument(f"{self.where}: settings are refused: {error}") from error

    def each(self, name: str) -> list[_Fields]:
        value = self.value(name)
        if not isinstance(value, list):
            raise InvalidDocument(f"{self.where}: {name} is not a list")
        return [_Fields(item, f"{name}[{place}]") for place, item in enumerate(value)]

    def record(self, kind: type[RecordT], /, **values: Any) -> RecordT:
        try:
            return kind(**values)
        except InvalidRecord as error:
            raise InvalidDocument(f"{self.where}: {error}") from error


def _environment_in(fields: _Fields) -> EnvironmentRecord:
    return fields.record(
        EnvironmentRecord,
        fingerprint=fields.text("fingerprint"),
        facts_json=fields.json("facts"),
        first_seen=fields.time("first_seen"),
    )


def _workload_in(fields: _Fields, validate: Validator | None) -> WorkloadRecord:
    workload = fields.record(
        WorkloadRecord,
        signature=fields.text("signature"),
        workload_json=fields.json("workload"),
        first_seen=fields.time("first_seen"),
    )
    try:
        signature = validate(workload.workload_json) if validate else workload.signature
    except ValueError as error:
        raise InvalidDocument(f"{fields.where}: workload is refused: {error}") from error
    if signature != workload.signature:
        raise InvalidDocument(f"{fields.where}: signature is not the workload's, which is {signature}")
    return workload


def _promotion_in(fields: _Fields, validate: Validator) -> PromotionRecord:
    settings_key, settings_json = fields.settings(validate)
    texts = {name: fields.text(name) for name in _PROMOTION_TEXTS}
    return fields.record(
        PromotionRecord,
        **texts,
        settings_key=settings_key,
        settings_json=settings_json,
        evidence_json=fields.json("evidence"),
        promoted_at=fields.time("promoted_at"),
        kind="import",
    )


def _pin_in(fields: _Fields, validate: Validator) -> PinRecord:
    settings_key, settings_json = fields.settings(validate)
    return fields.record(
        PinRecord,
        symbol=fields.text("symbol"),
        settings_key=settings_key,
        settings_json=settings_json,
        reason=fields.text("reason"),
        pinned_at=fields.time("pinned_at"),
    )


def _promotion_out(promotion: PromotionRecord) -> dict[str, Any]:
    return {name: getattr(promotion, name) for name in _PROMOTION_TEXTS} | {
        "settings_key": promotion.settings_key,
        "settings": _parsed(promotion.settings_json),
        "evidence": _parsed(promotion.evidence_json),
        "promoted_at": _time_text(promotion.promoted_at),
    }


def _check_references(exchange: Exchange) -> None:
    signatures = _unique("workloads", [workload.signature for workload in exchange.workloads])
    fingerprints = _unique("environments", [environment.fingerprint for environment in exchange.environments])
    _unique("pins", [pin.symbol for pin in exchange.pins])
    for place, promotion in enumerate(exchange.promotions):
        if promotion.workload_signature not in signatures:
            raise InvalidDocument(
                f"promotions[{place}]: workload_signature is not among the document's workloads"
            )
        if promotion.environment_fingerprint not in fingerprints:
            raise InvalidDocument(
                f"promotions[{place}]: environment_fingerprint is not among the document's environments"
            )


def _unique(name: str, keys: Sequence[str]) -> frozenset[str]:
    if len(set(keys)) != len(keys):
        raise InvalidDocument(f"{name} names the same thing twice: give each once")
    return frozenset(keys)


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise StoreCorrupt(f"the store holds text that is not JSON ({error}): restore a backup") from error


def _time_text(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat()
