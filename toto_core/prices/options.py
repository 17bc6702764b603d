"""What a person may say of their price files, and the refusal of a file that holds no clear prices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Self

from toto_core.lines import OneLineError
from toto_core.symbols import quoted

EMBEDDED = "embedded"
"""What a series names as its source when it is one of the samples of this package."""
DECIMALS = (".", ",")


class SeriesError(OneLineError):
    """Bad price data; the message is one line: file, row (when known), reason, and the option that decides it."""


class CellRefusedError(ValueError):
    """A cell of one column makes no sense; ``row`` counts the column's cells from 0."""

    def __init__(self, row: int, reason: str) -> None:
        super().__init__(reason)
        self.row = row


@dataclass(frozen=True, kw_only=True)
class PriceOptions:
    """How price files are to be read, where they leave a choice; None leaves it to the file.

    ``price_column`` and ``time_column`` are names in the header, or positions from 1 where there is none.
    ``timezone`` is the IANA zone of stamps without an offset (UTC unless given). ``decimal`` is ``.`` or ``,``.
    ``allow_negative`` admits prices of zero and below. Raises ``ValueError`` for anything else.
    """

    price_column: str | None = None
    time_column: str | None = None
    timezone: str | None = None
    decimal: str | None = None
    allow_negative: bool = False

    def __post_init__(self) -> None:
        if self.decimal not in (None, *DECIMALS):
            raise ValueError(f"decimal {self.decimal!r}: must be '.' or ','")
        if self.timezone is None:
            return
        import zoneinfo  # only zones need it

        try:
            zoneinfo.ZoneInfo(self.timezone)
        except (ValueError, OSError, zoneinfo.ZoneInfoNotFoundError):
            raise ValueError(
                f"timezone {quoted(self.timezone)} is not known: use a name such as America/New_York or UTC"
            ) from None

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of ``to_dict``. Raises ``ValueError`` for unknown names and values of another kind."""
        kinds = {field.name: bool if field.name == "allow_negative" else str for field in fields(cls)}
        for name, value in values.items():
            if name not in kinds:
                raise ValueError(f"{quoted(str(name))} is not one of {', '.join(kinds)}")
            if not isinstance(value, kinds[name]):
                wanted = "true or false" if kinds[name] is bool else "text"
                raise ValueError(f"{name} must be {wanted}, not {quoted(str(value))}")
        return cls(**values)

    def to_dict(self) -> dict[str, str | bool]:
        """The options that are given, by name."""
        return {field.name: value for field in fields(self) if (value := getattr(self, field.name))}


AS_THEY_LIE = PriceOptions()
"""Nothing said: the file decides, and is refused where it leaves a choice."""


@dataclass(frozen=True, kw_only=True)
class PriceSource:
    """Where prices lie, a file or a folder (None: the samples of this package), and how they are to be read."""

    data: str | None = None
    options: PriceOptions = AS_THEY_LIE

    @property
    def path(self) -> Path | None:
        """``data`` as a path."""
        return None if self.data is None else Path(self.data)

    def or_else(self, before: Self) -> Self:
        """This source where it says anything, else ``before``; options alone say how to read ``before``."""
        if self.data is not None or self == type(before)():
            return before if self.data is None else self
        return replace(before, options=self.options)


THE_SAMPLES = PriceSource()
