"""Where a store is: one reading of a path or URL, for the store, its snapshot and everything that lies beside it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from storage.errors import StoreUnavailable
from storage.masking import OPTIONS, is_plain_path, is_secret, masked_address, secret_option

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
_SERVERS = ("postgres", "postgresql")
_DRIVER = "postgresql+psycopg"
_QUOTES = ("'", '"')
_SERVER = re.compile(r"(?:[^:/]*(?::(?P<password>[^@]*))?@)?(?P<place>[^?]*)(?:\?(?P<query>.*))?", re.DOTALL)
"""What SQLAlchemy reads of a server's address behind ``://``."""


@dataclass(frozen=True, kw_only=True)
class Address:
    """A store's place: the ``path`` of a SQLite file or the ``url`` of a PostgreSQL server, the other None.

    ``timeout_s`` is how long a file may be busy, None where the address does not say.
    """

    path: Path | None = None
    url: str | None = field(default=None, repr=False)  # it may hold a password
    timeout_s: float | None = None


def parse_address(text: str) -> Address:
    """The place that ``text`` names, as people, env files and tools of SQLAlchemy write it.

    A plain path means what it says, ``?``, ``#``, ``%`` and blanks included; ``~`` is the home folder. URLs are
    ``sqlite:///relative``, ``sqlite:////absolute``, ``file:/absolute`` (percent-encoded, ``?timeout=`` in seconds)
    and ``postgresql://``. Quotes around it and a line end after it are left out. Raises ``StoreUnavailable``, also
    for a mistyped address: a file that is named after a password would show it to everybody.
    """
    given = _bare(text)
    if not given or not given.isprintable():
        raise StoreUnavailable(f"{masked_address(text)!r} is no file name: name a file for the store")
    if given.startswith("file:"):
        return _file(given.removeprefix("file:"), given)
    shown = masked_address(given)
    if re.match(r"sqlite[^/]*:(?!//)", given):
        raise StoreUnavailable(
            f"{shown}: a URL has slashes: sqlite:///{shown.partition(':')[2]} is a file in this folder"
        )
    url = _URL.fullmatch(given)
    if url is None:
        if "://" in given:
            raise StoreUnavailable("the store's address is no URL: give a path or postgresql+psycopg://…")
        if given == ":memory:":
            raise _in_memory()
        return Address(path=_path(given))
    scheme, rest = url[1].lower(), url[2]
    kind = scheme.partition("+")[0]
    if kind in _SERVERS and rest:
        _refuse_ambiguous(rest)
        return Address(url=f"{_DRIVER if scheme in _SERVERS else scheme}://{rest}")
    if kind != "sqlite":
        raise StoreUnavailable(
            f"a store cannot be kept in {scheme}: give a path, sqlite:///… or postgresql+psycopg://…"
        )
    if rest and not rest.startswith("/"):
        name = masked_address(f"sqlite://{rest}").removeprefix("sqlite://").partition("?")[0]
        raise StoreUnavailable(
            f"sqlite://{name} names a server, which SQLite has not: sqlite:///{name} is a file in this folder, "
            f"sqlite:////{name} one below the root"
        )
    return _file(f"/{rest}" if rest.startswith("//") else rest[1:], given, plain=True)


def sqlite_url(path: Path) -> str:
    """The URL of a SQLite file for SQLAlchemy, whatever characters its path has."""
    from urllib.parse import quote

    return f"sqlite:///{quote(str(path))}"


def _bare(text: str) -> str:
    text = text.strip()
    if len(text) > 1 and text[0] == text[-1] and text[0] in _QUOTES:
        text = text[1:-1].strip()
    return text


def _file(rest: str, given: str, *, plain: bool = False) -> Address:
    """The file that the rest of a URL names, percent-encoded and perhaps with a query."""
    from urllib.parse import unquote  # a lookup by a plain path needs none of it

    encoded, _, query = rest.partition("?")
    name = unquote(encoded)
    name = "/" + name.lstrip("/") if name.startswith("//") else name
    if name.startswith("file:") and plain:
        raise StoreUnavailable(f"{masked_address(given)} is a URL in a URL: give the path alone")
    if name in {"", ":memory:"}:
        raise _in_memory()
    if not name.isprintable():
        raise StoreUnavailable(f"{masked_address(name)!r} is no file name: name a file for the store")
    return Address(path=_path(name), timeout_s=_timeout(query, masked_address(given)))


def _timeout(query: str, shown: str) -> float | None:
    from urllib.parse import parse_qsl

    options = dict(parse_qsl(query, keep_blank_values=True))
    seconds = options.pop("timeout", None)
    if options:
        raise StoreUnavailable(f"{shown}: {next(iter(options))} is no option of a store; only timeout is")
    if seconds is None:
        return None
    try:
        found = float(seconds)
    except ValueError:
        found = -1.0
    if not 0 <= found <= 3600:
        raise StoreUnavailable(f"{shown}: timeout must be seconds from 0 to 3600")
    return found


def _refuse_ambiguous(rest: str) -> None:
    """Refuse an address in which the driver would take a part of the password for something that it prints."""
    found = _SERVER.fullmatch(rest)
    if found is None:
        return
    options = [part.partition("=")[0] for part in (found["query"] or "").split("&")]
    behind = rest[secret_option(rest) :]
    cut_by_at = "@" in behind or (found["password"] is not None and "@" in rest[found.start("place") :])
    cut_by_and = any(map(is_secret, options)) and not all(
        name in OPTIONS or is_secret(name) for name in options
    )
    if cut_by_at or cut_by_and:
        raise StoreUnavailable(
            "where the password ends in the store's address cannot be told: write @ / ? # & % + and blanks in a "
            "password as %40 %2F %3F %23 %26 %25 %2B %20"
        )


def _path(name: str) -> Path:
    if not is_plain_path(name) and masked_address(name) != name:
        raise StoreUnavailable(
            f"{masked_address(name)} reads as a server's address that is mistyped: give "
            "postgresql+psycopg://USER:PASSWORD@HOST/NAME, or ./ before a file that has this name"
        )
    try:
        path = Path(name).expanduser()
    except RuntimeError:
        raise StoreUnavailable(f"{name}: there is no such user's home folder") from None
    if not path.name:
        raise StoreUnavailable(f"{name!r} is no file name: name a file for the store")
    return path


def _in_memory() -> StoreUnavailable:
    return StoreUnavailable("a store in memory would be lost at once: name a file")
