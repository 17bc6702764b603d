"""Takes passwords out of text: every address, and every text that may quote one, is shown as this gives it.

``masked_address`` is for a text that is one address and nothing else, however mistyped: where it cannot be told what
of it is the password, too much is hidden rather than too little. ``masked`` is for prose, such as a driver's message.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise

HIDDEN = "***"
OPTIONS = frozenset(
    re.findall(
        r"\w+",
        """
    application_name channel_binding client_encoding connect_timeout dbname fallback_application_name gssdelegation
    gssencmode gsslib host hostaddr keepalives keepalives_count keepalives_idle keepalives_interval krbsrvname
    load_balance_hosts max_protocol_version min_protocol_version oauth_client_id oauth_issuer oauth_scope options
    passfile port replication require_auth requirepeer scram_client_key scram_server_key service servicefile
    ssl_max_protocol_version ssl_min_protocol_version sslcert sslcertmode sslcompression sslcrl sslcrldir sslkey
    sslkeylogfile sslmode sslnegotiation sslrootcert sslsni target_session_attrs tcp_user_timeout timeout user
    """,
    )
)
"""What libpq takes in an address beside secrets."""
_SECRETS = frozenset(
    {"password", "sslpassword", "pgpassword", "passwd", "passphrase", "pass", "pwd", "oauth_client_secret"}
)
_MAY_NAME_A_SECRET = re.compile("pass|pwd|secret|%", re.IGNORECASE)

_NAME = r"[\w.~%+-]*"
_HOST = rf"(?:\[[^\]\s]*\]|{_NAME})(?::\d*)?"
_HOSTS = rf"{_HOST}(?:,{_HOST})*+"
_SCHEME = r"(?:\w{0,15}(?:postg|sql|redis|maria|oracle|cockroach|mongo)[\w+.-]{0,30}|pg|https?|tcp)"
_URL = re.compile(rf"\s*+{_SCHEME}?\s*+:?\s*+//+\s*+", re.IGNORECASE)
_MISTYPED_URL = re.compile(r"\s*+(?:\w{0,15}(?:postg|redis)[\w+.-]{0,30})?\s*+[:;]+\s*+/*\s*+", re.IGNORECASE)
_BEFORE_URL = re.compile(r"[\w\s\"'=-]*?\b(?=(?:\w{0,15}postg\w{0,15}|rediss?)(?:\+\w+)?://)", re.IGNORECASE)
_FILE = re.compile(r"(?:sqlite(?:\+\w+)?:///|file:)", re.IGNORECASE)
_NO_USER = re.compile(rf"{_HOSTS}(?=[/?]|$)")
_OPTION = re.compile(r"(?:^|(?<=[?&;,\s\"'(\[{]))([\w%]+)\s*=\s*")
_QUOTED = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"", re.DOTALL)

_PROSE_URL = re.compile(rf"(?<![\w+.-]){_SCHEME}(?:\s?:\s?/{{1,3}}|//)", re.IGNORECASE)
_PROSE_NO_SECRET = re.compile(
    rf"(?:(?:{_NAME}:)?{re.escape(HIDDEN)}@|(?:{_NAME}@)?{_HOSTS}(?=[/?\s\"'`),.;:]|$)[^@\s]*(?!\S))"
)
_PROSE_PAIR = re.compile(
    rf"(?<![^\s\"'(=,;\[{{<`])({_NAME}):(?!\S*(?<=[:/]){re.escape(HIDDEN)}@)\S+@(?=[\w\[.-])"
)


def masked(text: str) -> str:
    """``text`` without the passwords of the addresses and of the ``password=...`` in it."""
    if "@" not in text and "=" not in text and "://" not in text:
        return text
    if (
        "@" not in text and "/" not in text and not _MAY_NAME_A_SECRET.search(text)
    ):  # as in most lines of a table
        return text
    text = _without_options(text, _prose_value)
    starts = [found.end() for found in _PROSE_URL.finditer(text)]
    parts = [text[: starts[0]] if starts else text]
    parts += [_prose_address(text[start:end]) for start, end in pairwise((*starts, len(text)))]
    return _PROSE_PAIR.sub(_prose_pair, "".join(parts))


def masked_address(text: str) -> str:
    """``text``, all of which is an address or a path, without the passwords in it."""
    bare = text.lstrip(" \t\r\n\"'")
    before = text[: len(text) - len(bare)]
    if file := _FILE.match(bare):
        before, bare = before + file[0], bare[file.end() :]
    return before + (bare if is_plain_path(bare) else _hidden(bare))


def is_plain_path(given: str) -> bool:
    """Whether this begins as only a path begins: what follows is a name, whatever characters it has."""
    return given.startswith((".", "~")) or (given.startswith("/") and not given.startswith("//"))


def is_secret(option: str) -> bool:
    """Whether the value of an option of this name is a secret."""
    if "%" in option:
        from urllib.parse import unquote  # a lookup by a plain path needs none of it

        option = unquote(option)
    return option.strip().lower() in _SECRETS


def secret_option(text: str) -> int:
    """Where in an address the value of the first secret option begins, its end where it has none."""
    return next((found.end() for found in _OPTION.finditer(text) if is_secret(found[1])), len(text))


def _hidden(given: str) -> str:
    first = _OPTION.match(given)
    given = _without_options(given, _whole_value)
    if first and (first[1].lower() in OPTIONS or is_secret(first[1])):
        return given  # libpq's other form: host=... password=...
    before = _BEFORE_URL.match(given)
    start = before.end() if before else 0
    url, mistyped = _URL.match(given, start), _MISTYPED_URL.match(given, start)
    prefix = given[: url.end() if url else mistyped.end() if mistyped else start]
    rest = given[len(prefix) :]
    user, at, server = rest.rpartition("@")
    if not at:
        return prefix + (_without_host(rest) if prefix else rest)
    name = _leading_name(user)
    if name == user:  # no colon, so no password, where the scheme is not taken for a user
        return given if url or not mistyped else f"{prefix}{HIDDEN}@{server}"
    if not prefix and ":" not in user:
        return given
    return f"{prefix}{name}:{HIDDEN}@{server}"


def _without_host(rest: str) -> str:
    """An address whose ``@HOST`` was forgotten: ``USER:PASSWORD`` stands where a host and a port do."""
    name, colon, _ = rest.partition(":")
    return rest if not colon or _NO_USER.match(rest) else f"{name}:{HIDDEN}"


def _without_options(text: str, value_end: Callable[[str, int], int]) -> str:
    """The text with each value of a secret option hidden; ``value_end`` says where one that begins there ends."""
    parts, place = [], 0
    for found in _OPTION.finditer(text):
        if found.start() >= place and is_secret(found[1]):
            parts += [text[place : found.end()], HIDDEN]
            place = value_end(text, found.end())
    return "".join(parts) + text[place:]


def _whole_value(text: str, start: int) -> int:
    """A value of an address ends before an option that there is, else with the address: it may hold anything."""
    quoted = _QUOTED.match(text, start)
    for found in re.finditer(r"[&;\s]+([\w%]+)\s*=", text[quoted.end() if quoted else start :]):
        if found[1].lower() in OPTIONS or is_secret(found[1]):
            return (quoted.end() if quoted else start) + found.start()
    return len(text)


def _prose_value(text: str, start: int) -> int:
    quoted = _QUOTED.match(text, start)
    if quoted:
        return quoted.end()
    if text.startswith(HIDDEN, start):
        return start + len(HIDDEN)
    value = re.compile(r"[^\s&]*").match(text, start)
    return value.end() if value else start


def _prose_pair(found: re.Match[str]) -> str:
    """``USER:PASSWORD@`` without a scheme."""
    begins_a_url = found[0].startswith("//", found.end(1) + 1 - found.start())
    return found[0] if begins_a_url and re.fullmatch(_SCHEME, found[1], re.I) else f"{found[1]}:{HIDDEN}@"


def _prose_address(text: str) -> str:
    """What follows ``scheme://``, up to the next address."""
    if _PROSE_NO_SECRET.match(text):
        return text
    word = (text.split(maxsplit=1) or [""])[0]
    if ":" not in word:
        return text
    line, end, rest = text.partition("\n")
    name, (_, at, server) = _leading_name(text), line.rpartition("@")
    shown = f"{name}:{HIDDEN}@{server}" if at else f"{name}:{HIDDEN}{line[len(word) :]}"
    return shown + end + rest


def _leading_name(text: str) -> str:
    found = re.match(_NAME, text)
    return found[0] if found else ""
