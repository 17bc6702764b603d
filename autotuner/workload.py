"""``Workload``: what production asks of a model, and its signature; needs neither torch nor pandas."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from autotuner.errors import UsageError
from toto_core.settings import KnobValue, SettingsFacts

DEFAULT_MODEL = "toto-mini"
LONGEST = 1_000_000
HEAVIEST = 1e12
_MOST_SHAPES, _MOST_TOLD = 256, 8
_LONGEST_NAME = 4_096  # as the path of a folder


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= _LONGEST_NAME and value.isprintable()


def _whole(name: str, value: Any, *, high: int = LONGEST) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= high:
        raise UsageError(f"workload: {name} must be a whole number from 1 to {high}, not {value!r}")


@dataclass(frozen=True, kw_only=True)
class RequestShape:
    """One kind of request: lengths in time steps, ``num_samples`` None for the deterministic mean path.

    ``weight`` is its share of the requests, relative to the other shapes. Raises ``UsageError``.
    """

    context_length: int = 512
    prediction_length: int = 8
    num_samples: int | None = 256
    variates: int = 1
    weight: float = 1.0

    def __post_init__(self) -> None:
        for name in ("context_length", "prediction_length", "variates"):
            _whole(name, getattr(self, name))
        if self.num_samples is not None:
            _whole("num_samples", self.num_samples)
        if isinstance(self.weight, bool) or not isinstance(self.weight, int | float) or not self.weight > 0:
            raise UsageError(f"workload: weight must be a number above 0, not {self.weight!r}")
        if not self.weight <= HEAVIEST:  # 400 digits fit an int only
            raise UsageError(f"workload: weight must be finite and at most {HEAVIEST:g}, not {self.weight!r}")


@dataclass(frozen=True, kw_only=True)
class Workload:
    """What production asks: a model, one or more request shapes, series per call, calls per process life.

    ``concurrency`` is how many processes forecast at the same time on the machine. Raises ``UsageError`` for values
    outside their range.
    """

    model: str = DEFAULT_MODEL
    revision: str | None = None
    shapes: tuple[RequestShape, ...] = (RequestShape(),)
    series_per_call: int = 1
    calls_per_process: int = 10_000
    concurrency: int = 1

    def __post_init__(self) -> None:
        if not _is_name(self.model):
            raise UsageError("workload: model must be a name, a folder or a hub id, of printable characters")
        if self.revision is not None and self.revision != "" and not _is_name(self.revision):
            raise UsageError(
                f"workload: revision must be text of printable characters, not {self.revision!r}"
            )
        if not 1 <= len(self.shapes) <= _MOST_SHAPES:
            raise UsageError(
                f"workload: needs at least one request shape and at most {_MOST_SHAPES}, not {len(self.shapes)}"
            )
        _whole("series_per_call", self.series_per_call)
        _whole("calls_per_process", self.calls_per_process, high=10**12)
        _whole("concurrency", self.concurrency, high=1_000)

    @property
    def weights(self) -> tuple[float, ...]:
        """Share of each shape, summing to 1."""
        total = sum(shape.weight for shape in self.shapes)
        return tuple(shape.weight / total for shape in self.shapes)

    @property
    def longest_context(self) -> int:
        """The longest context of all shapes, in time steps."""
        return max(shape.context_length for shape in self.shapes)

    @property
    def longest_prediction(self) -> int:
        """The longest prediction of all shapes, in time steps."""
        return max(shape.prediction_length for shape in self.shapes)

    @functools.cached_property
    def signature(self) -> str:
        """16 hexadecimal digits that are equal for equal workloads, whatever the order of their shapes."""
        fields = self.to_dict()
        fields["requests"] = sorted(
            ({**r, "weight": round(w, 9)} for r, w in zip(fields["requests"], self.weights, strict=True)),
            key=lambda request: json.dumps(request, sort_keys=True),
        )
        text = json.dumps(fields, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def summary(self) -> str:
        """One line for people."""
        requests = "; ".join(
            f"context {s.context_length} · horizon {s.prediction_length} · "
            f"{'mean path' if s.num_samples is None else f'{s.num_samples} samples'}"
            f"{f' · {s.variates} variates' if s.variates > 1 else ''}"
            f"{f' ({w:.0%})' if len(self.shapes) > 1 else ''}"
            for s, w in itertools.islice(zip(self.shapes, self.weights, strict=True), _MOST_TOLD)
        )
        if len(self.shapes) > _MOST_TOLD:
            requests += f"; and {len(self.shapes) - _MOST_TOLD} more"
        many = f", {self.series_per_call} series per call" if self.series_per_call > 1 else ""
        crowd = f", {self.concurrency} processes at once" if self.concurrency > 1 else ""
        return f"{self.model}: {requests}{many}{crowd}"

    def facts(
        self,
        *,
        device: str,
        threads: int,
        patch_size: int,
        fp16_units: bool = False,
        most_together: int | None = None,
        knobs: Mapping[str, tuple[KnobValue, ...]] = MappingProxyType({}),
        ignored: tuple[str, ...] = (),
        one_pass: bool = False,
        samples: bool = True,
    ) -> SettingsFacts:
        """What of this workload decides which settings can differ; the last four are an engine's ``Traits``."""
        return SettingsFacts(
            device=device,
            threads=threads,
            patch_size=patch_size,
            shapes=tuple(sorted({(s.context_length, s.prediction_length) for s in self.shapes})),
            most_samples=max(s.num_samples or 0 for s in self.shapes) if samples else 0,
            series_per_call=self.series_per_call,
            fp16_units=fp16_units,
            most_together=most_together,
            knobs=tuple(knobs.items()),
            ignored=ignored,
            one_pass=one_pass,
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values; the shapes are under ``requests``, and ``concurrency`` only where there is any."""
        fields = dataclasses.asdict(self)
        if self.concurrency == 1:  # signatures stay what they were before there was any
            del fields["concurrency"]
        fields["requests"] = list(fields.pop("shapes"))
        return fields

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(self.to_dict(), separators=(",", ":"))

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Workload:
        """Read plain values. Raises ``UsageError`` for an unknown field or a wrong value."""
        values = dict(fields)
        requests = values.pop("requests", None)
        _known("workload", values, {f.name for f in dataclasses.fields(cls)} - {"shapes"})
        if requests is None:
            return cls(**values)
        if not isinstance(requests, list | tuple) or not all(isinstance(r, Mapping) for r in requests):
            raise UsageError("workload: requests must be a list of tables")
        known = {f.name for f in dataclasses.fields(RequestShape)}
        for request in requests:
            _known("workload: requests", request, known)
        return cls(**values, shapes=tuple(RequestShape(**request) for request in requests))


def read_workload(path: Path) -> Workload:
    """Read a workload file in TOML: top-level fields of ``Workload`` and ``[[requests]]`` tables.

    A request without ``num_samples`` asks for 256; ``num_samples = 0`` asks for the mean path. Raises
    ``UsageError`` with the file's name.
    """
    import tomllib

    try:
        with path.open("rb") as file:
            fields = tomllib.load(file)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror or error}") from None
    except RecursionError:
        raise UsageError(f"{path}: is not TOML: nested too deeply") from None
    except ValueError as error:  # no TOML, no UTF-8, or a number of more digits than Python converts
        raise UsageError(f"{path}: is not TOML: {error}") from None
    requests = fields.get("requests")
    for request in requests if isinstance(requests, list) else ():
        if isinstance(request, dict) and request.get("num_samples") == 0:
            request["num_samples"] = None
    try:
        return Workload.from_dict(fields)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None


def _known(where: str, values: Mapping[str, Any], known: set[str]) -> None:
    for name in values:
        if name not in known:
            raise UsageError(f"{where}: unknown field {name!r}; known are {', '.join(sorted(known))}")
