"""Where a store is: one reading of a path or URL, for the store, its snapshot and everything that lies beside it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from storage.errors import StoreUnavailable

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
_SERVERS = ("postgres", "postgresql")
_DRIVER = "postgresql+psycopg"
_QUOTES = ("'", '"')


@dataclass(frozen=True, kw_only=True)
class Address:
    """A store's place: the ``path`` of a SQLite file or the ``url`` of a PostgreSQL server, the other None.

    ``timeout_s`` is how long a file may be busy, None where the address does not say.
    """

    path: Path | None = None
    url: str | None = None
    timeout_s: float | None = None


def parse_address(text: str) -> Address:
    """The place that ``text`` names, as people, env files and tools of SQLAlchemy write it.

    A plain path means what it says, ``?``, ``#``, ``%`` and blanks included; ``~`` is the home folder. URLs are
    ``sqlite:///relative``, ``sqlite:////absolute``, ``file:/absolute`` (percent-encoded, ``?timeout=`` in seconds)
    and ``postgresql://``. Quotes around it and a line end after it are left out. Raises ``StoreUnavailable``.
    """
    given = _bare(text)
    if not given or not given.isprintable():
        raise StoreUnavailable(f"{text!r} is no file name: name a file for the store")
    if given.startswith("file:"):
        return _file(given.removeprefix("file:"), given)
    if re.match(r"sqlite[^/]*:(?!//)", given):
        raise StoreUnavailable(
            f"{given}: a URL has slashes: sqlite:///{given.partition(':')[2]} is a file in this folder"
        )
    url = _URL.fullmatch(given)
    if url is None:
        if "://" in given:
            raise StoreUnavailable("the store's address is no URL: give a path or postgresql+psycopg://…")
        if given == ":memory:":
            raise _in_memory()
        return Address(path=_expanded(given))
    scheme, rest = url[1].lower(), url[2]
    kind = scheme.partition("+")[0]
    if kind in _SERVERS and rest:
        return Address(url=f"{_DRIVER if scheme in _SERVERS else scheme}://{rest}")
    if kind != "sqlite":
        raise StoreUnavailable(
            f"a store cannot be kept in {scheme}: give a path, sqlite:///… or postgresql+psycopg://…"
        )
    if rest and not rest.startswith("/"):
        name = rest.partition("?")[0]
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
        raise StoreUnavailable(f"{given} is a URL in a URL: give the path alone")
    if name in {"", ":memory:"}:
        raise _in_memory()
    if not name.isprintable():
        raise StoreUnavailable(f"{name!r} is no file name: name a file for the store")
    return Address(path=_expanded(name), timeout_s=_timeout(query, given))


def _timeout(query: str, given: str) -> float | None:
    from urllib.parse import parse_qsl

    options = dict(parse_qsl(query, keep_blank_values=True))
    seconds = options.pop("timeout", None)
    if options:
        raise StoreUnavailable(f"{given}: {next(iter(options))} is no option of a store; only timeout is")
    if seconds is None:
        return None
    try:
        found = float(seconds)
    except ValueError:
        found = -1.0
    if not 0 <= found <= 3600:
        raise StoreUnavailable(f"{given}: timeout must be seconds from 0 to 3600")
    return found


def _expanded(name: str) -> Path:
    try:
        path = Path(name).expanduser()
    except RuntimeError:
        raise StoreUnavailable(f"{name}: there is no such user's home folder") from None
    if not path.name:
        raise StoreUnavailable(f"{name!r} is no file name: name a file for the store")
    return path


def _in_memory() -> StoreUnavailable:
    return StoreUnavailable("a store in memory would be lost at once: name a file")
