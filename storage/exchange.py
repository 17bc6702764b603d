"""Turns active promotions and pins into one JSON document and back, checked before any of it is stored."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import Field, dataclass, fields
from datetime import UTC, datetime
from typing import Any, TypeVar

from storage.checks import quoted
from storage.errors import InvalidDocument, InvalidRecord, StoreCorrupt
from storage.records import EnvironmentRecord, PinRecord, PromotionRecord, Record, WorkloadRecord

FORMAT, VERSION = "autotune settings", 1

_LONGEST_TEXT, _LONGEST_JSON = 10_000, 1_000_000
"""What a field may hold: a reason of some lines, figures of hundreds of request shapes."""

Validator = Callable[[str], str]
RecordT = TypeVar("RecordT", bound=Record)

_STORES_OWN = frozenset({"kind", "run_id", "id", "rolled_back_at", "rolled_back_reason"})
"""Fields of records that a document leaves out: they say how this store came by a record."""


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """What a document carries: active promotions, oldest first, pins, and what they refer to."""

    environments: tuple[EnvironmentRecord, ...]
    workloads: tuple[WorkloadRecord, ...]
    promotions: tuple[PromotionRecord, ...]
    pins: tuple[PinRecord, ...]


def build_document(**parts: Iterable[Record]) -> dict[str, Any]:
    """The document of the parts of an `Exchange`, for `json.dumps`. Raises `StoreCorrupt` for text not JSON."""
    objects = {name: [_plain(record) for record in records] for name, records in parts.items()}
    return {"format": FORMAT, "version": VERSION, **objects}


def parse_document(
    document: object, *, validate_settings: Validator, validate_workload: Validator | None = None
) -> Exchange:
    """What the document carries; settings get the key that `validate_settings` gives for their JSON text.

    `validate_workload`, if given, returns the signature of a workload's JSON text; it must be the document's.
    Both raise ValueError for what they refuse. Raises `InvalidDocument` naming the field.
    """
    top = _Object(document, "the document")
    written_as, version = top.text("format"), top.value("version")
    if written_as != FORMAT or type(version) is not int or version != VERSION:  # not true, not 1.0
        raise InvalidDocument(
            f"the document is not version {VERSION} of {FORMAT!r}: export it with this version"
        )
    exchange = Exchange(
        environments=tuple(item.record(EnvironmentRecord) for item in top.each("environments")),
        workloads=tuple(_workload(item, validate_workload) for item in top.each("workloads")),
        promotions=tuple(
            item.record(PromotionRecord, settings_key=item.settings_key(validate_settings), kind="import")
            for item in top.each("promotions")
        ),
        pins=tuple(
            item.record(PinRecord, settings_key=item.settings_key(validate_settings))
            for item in top.each("pins")
        ),
    )
    _check_references(exchange)
    return exchange


class _Object:
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
        if len(value) > _LONGEST_TEXT:
            raise InvalidDocument(f"{self.where}: {name} is longer than {_LONGEST_TEXT} characters")
        return value

    def time(self, name: str) -> datetime:
        text = self.text(name)
        try:
            return datetime.fromisoformat(text)
        except ValueError:
            raise InvalidDocument(f"{self.where}: {name} {quoted(text)} is not an ISO 8601 time") from None

    def json(self, name: str) -> str:
        try:
            text = json.dumps(self.value(name), sort_keys=True, separators=(",", ":"), allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise InvalidDocument(f"{self.where}: {name} is not plain JSON: {error}") from error
        if len(text) > _LONGEST_JSON:
            raise InvalidDocument(f"{self.where}: {name} is longer than {_LONGEST_JSON} characters of JSON")
        return text

    def settings_key(self, validate: Validator) -> str:
        text = self.json("settings")
        try:
            return validate(text)
        except ValueError as error:
            raise InvalidDocument(f"{self.where}: settings are refused: {error}") from error

    def each(self, name: str) -> list[_Object]:
        value = self.value(name)
        if not isinstance(value, list):
            raise InvalidDocument(f"{self.where}: {name} is not a list")
        return [_Object(item, f"{name}[{place}]") for place, item in enumerate(value)]

    def record(self, kind: type[RecordT], /, **known: Any) -> RecordT:
        """The object as a record, but for the fields that are known already and those that are the store's."""
        values = {
            field.name: self._read(field)
            for field in fields(kind)
            if field.name not in known and field.name not in _STORES_OWN
        }
        try:
            return kind(**values, **known)
        except InvalidRecord as error:
            raise InvalidDocument(f"{self.where}: {error}") from error

    def _read(self, field: Field[Any]) -> Any:
        if field.name.endswith("_json"):
            return self.json(field.name.removesuffix("_json"))
        return self.time(field.name) if field.type == "datetime" else self.text(field.name)


def _workload(item: _Object, validate: Validator | None) -> WorkloadRecord:
    workload = item.record(WorkloadRecord)
    try:
        signature = validate(workload.workload_json) if validate else workload.signature
    except ValueError as error:
        raise InvalidDocument(f"{item.where}: workload is refused: {error}") from error
    if signature != workload.signature:
        raise InvalidDocument(f"{item.where}: signature is not the workload's, which is {signature}")
    return workload


def _plain(record: Record) -> dict[str, Any]:
    """A record as a JSON object: times as text, and what is JSON text parsed and named without `_json`."""
    plain = {name: value for name, value in vars(record).items() if name not in _STORES_OWN}
    return {name.removesuffix("_json"): _value(name, value) for name, value in plain.items()}


def _check_references(exchange: Exchange) -> None:
    signatures = _unique("workloads", [workload.signature for workload in exchange.workloads])
    fingerprints = _unique("environments", [environment.fingerprint for environment in exchange.environments])
    _unique("pins", [pin.symbol for pin in exchange.pins])
    for place, promotion in enumerate(exchange.promotions):
        for field, known, what in (
            ("workload_signature", signatures, "workloads"),
            ("environment_fingerprint", fingerprints, "environments"),
        ):
            if getattr(promotion, field) not in known:
                raise InvalidDocument(f"promotions[{place}]: {field} is not among the document's {what}")


def _unique(name: str, keys: Sequence[str]) -> frozenset[str]:
    if len(set(keys)) != len(keys):
        raise InvalidDocument(f"{name} names the same thing twice: give each once")
    return frozenset(keys)


def _value(name: str, value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    try:
        return json.loads(value) if name.endswith("_json") else value
    except ValueError as error:
        raise StoreCorrupt(f"the store holds text that is not JSON ({error}): restore a backup") from error
