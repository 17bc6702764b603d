"""Options and small helpers that several commands share."""

from __future__ import annotations

import contextlib
import functools
import json
import math
import os
import shutil
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from autotuner.errors import AutotuneError, UsageError, one_line, visible
from autotuner.paths import is_file, snapshot_path, store_location, store_path, studies_url
from storage.masking import masked, masked_address
from toto_core.symbols import parse_symbol

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem
    from rich.console import RenderableType

    from autotuner.store import Store

_MANY = 1000
_MOST_LEFT_OUT = 20
PIPE_WIDTH = 180
"""Columns of a table that is not printed on a terminal."""

Command = TypeVar("Command", bound=Callable[..., Any])


def stored_symbols(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Symbols with settings or a pin that begin with what is typed; none where the store cannot be read.

    Of the store that ``--db`` names, else of the default one, as its snapshot has them: a shell waits for this.
    """
    from click.shell_completion import CompletionItem

    from storage.errors import SnapshotError
    from storage.snapshot import read_snapshot

    try:
        snapshot = read_snapshot(snapshot_path(store_location(ctx.params.get("db"))))
    except (SnapshotError, AutotuneError, OSError):
        return []
    known = {entry.symbol for entry in snapshot.entries} | {pin.symbol for pin in snapshot.pins}
    return [CompletionItem(symbol) for symbol in sorted(known) if symbol.startswith(incomplete.upper())]


def need(extra: str, *modules: str) -> None:
    """Raise ``AutotuneError`` with what to install where a module of an extra is missing."""
    missing = [name for name in modules if find_spec(name) is None]
    if missing:
        raise AutotuneError(f"{' and '.join(missing)} missing: pip install 'toto-autotune[{extra}]'")


class Symbol(click.ParamType[str]):
    """A trading symbol, upper-cased; anything else is refused before it touches a path or a query."""

    name = "symbol"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The symbol, upper-cased."""
        return parse_symbol(str(value))  # SymbolError is one line; click's own failure would be four

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Symbols of the store that begin with what is typed."""
        return stored_symbols(ctx, param, incomplete)


class AboveZero(click.ParamType[float]):
    """A finite number above 0."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The number; what is none, and one that no clock reaches, is refused."""
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = math.nan
        if not 0 < number < math.inf:
            self.fail(f"{value!r} is not a number above 0", param, ctx)
        return number


SYMBOL, COUNT, ABOVE_ZERO = Symbol(), click.IntRange(min=1), AboveZero()
AUTO = "auto"
EXISTING_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)

db_option = click.option(
    "--db", metavar="PATH|URL", help="Store to use [default: AUTOTUNE_DB, else the user data folder]."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
device_option = click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
workload_option = click.option(
    "--workload", "workload_file", type=EXISTING_FILE, help="TOML file with a mix of request shapes."
)


def store_options(command: Command) -> Command:
    """``--json`` and ``--db``."""
    return json_option(db_option(command))


def one_symbol(command: Command) -> Command:
    """``SYMBOL`` or ``--symbol``, exactly one of them; the command gets ``symbol``."""
    return _symbol_either_way(command, required=True)


def maybe_symbol(command: Command) -> Command:
    """``SYMBOL`` or ``--symbol``, at most one of them; the command gets ``symbol``, None without."""
    return _symbol_either_way(command, required=False)


def measuring_options(seconds: float | None, what: str) -> Callable[[Command], Command]:
    """``--device``, ``--json``, ``--db``, and ``--timeout`` in seconds, which the command gets as ``seconds``.

    None is ``auto``, which may be given, too, where it is the default.
    """
    if seconds is None:
        kind: dict[str, Any] = {"metavar": "SECONDS|auto", "default": AUTO, "callback": _seconds_or_auto}
    else:
        kind = {"type": ABOVE_ZERO, "default": seconds}
    timeout = click.option("--timeout", "seconds", show_default=True, help=what, **kind)
    return lambda command: timeout(device_option(store_options(command)))


def _seconds_or_auto(context: click.Context, option: click.Parameter, value: str) -> float | None:
    if value.lower() == AUTO:
        return None
    try:
        return ABOVE_ZERO.convert(value, option, context)
    except click.BadParameter as error:
        raise click.BadParameter(f"{error.message}, nor {AUTO}", context, option) from None


def refuse_own_files(target: Path, place: str) -> None:
    """Raise ``UsageError`` when ``target`` is a file of the store at ``place``, which writing would replace."""
    own = [snapshot_path(place)]
    if is_file(place):
        own += [store_path(place), store_path(studies_url(place))]
    if target.resolve() in {path.resolve() for path in own}:
        raise UsageError(f"{target} is a file of the store itself: name another one")


def warn_of_password(
    given: str | None,
    option: str = "--db",
    instead: str = "give the address in AUTOTUNE_DB, or keep the password in ~/.pgpass (chmod 600)",
) -> None:
    """Say so when an option holds a password: for as long as this runs, every user of the machine reads it."""
    if given and masked_address(given) != given:
        note(f"every user of this machine reads the password of {option} in ps: {instead}")


def print_json(document: Mapping[str, Any] | Sequence[Any], *, exact: bool = False) -> None:
    """One JSON document on standard output, without passwords unless it must be ``exact`` to be read again."""
    click.echo(json_text(document if exact else _without_passwords(document)))


def json_text(document: Mapping[str, Any] | Sequence[Any]) -> str:
    """``document`` as JSON, indented; what holds a list of thousands has each of its items on one line.

    Python indents at a fraction of the speed.
    """
    if not isinstance(document, Mapping) or all(
        not isinstance(part, list) or len(part) < _MANY for part in document.values()
    ):
        return _in_ascii(json.dumps(document, indent=2, allow_nan=False, default=str))
    parts = (f"  {json.dumps(name)}: {_one_an_item(part)}" for name, part in document.items())
    return _in_ascii("{\n" + ",\n".join(parts) + "\n}")


def _one_an_item(part: Any) -> str:
    if not isinstance(part, list) or not part:
        return json.dumps(part, allow_nan=False, default=str)
    items = ",\n    ".join(json.dumps(item, allow_nan=False, default=str) for item in part)
    return f"[\n    {items}\n  ]"


def json_line(document: Mapping[str, Any]) -> str:
    """One line of JSON for a log, without passwords."""
    return _in_ascii(json.dumps(_without_passwords(document), default=str))


def _in_ascii(text: str) -> str:
    return text.replace("\x7f", "\\u007f")  # the one control character that JSON leaves


def _without_passwords(value: Any) -> Any:
    """The same plain values; what JSON does not know becomes its text."""
    if isinstance(value, str):
        return masked(value)
    if isinstance(value, Mapping):
        return {name: _without_passwords(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_without_passwords(each) for each in value]
    return value if value is None or isinstance(value, bool | int | float) else masked(str(value))


def answer(document: Mapping[str, Any], *lines: str, as_json: bool) -> None:
    """``document`` as JSON, or else ``lines`` for people, on standard output."""
    if as_json:
        print_json(document)
    else:
        say(*lines)


def say(*lines: str) -> None:
    """Lines for people, on standard output: nothing in them steers the terminal or shows a password."""
    click.echo("\n".join(visible(line) for line in lines))


def note(line: str) -> None:
    """A line for people, on standard error."""
    click.echo(visible(line).replace("\n", " "), err=True)


@contextlib.contextmanager
def opened_store(place: str, *, create: bool = False) -> Iterator[Store]:
    """The store; afterwards what was left out of the answer because it is damaged is said, a line a symbol."""
    from autotuner.store import Store

    with Store(place, create=create) as store:
        yield store
    say_left_out(store)


def say_left_out(store: Store, *, but: Collection[str] = ()) -> None:
    """Say what was left out because it is damaged; nothing of the symbols that were told already."""
    lines = [one_line(str(each)) for each in store.records.damage if each.symbol not in but]
    for line in lines[:_MOST_LEFT_OUT]:
        note(line)
    if len(lines) > _MOST_LEFT_OUT:
        note(f"{len(lines) - _MOST_LEFT_OUT} more are damaged: `autotune list --json` names every symbol")


def clear_up_first(place: str) -> None:
    """Remove what killed processes left behind, and say on standard error that something was."""
    from autotuner.commands.clear_up import clear_up

    removed = clear_up(place)
    if removed:
        note(
            f"removed {removed} temporary folder{'s' * (removed > 1)} or files that a killed process left behind"
        )


def print_table(table: RenderableType) -> None:
    """A table for people on standard output, in colour only on a terminal."""
    from autotuner.cli.safe_console import SafeConsole

    SafeConsole(width=_width()).print(table)


def print_rows(names: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Rows under the names of their columns, for people on standard output."""
    from autotuner.report.long_table import LONG, long_lines

    if len(rows) >= LONG:
        width = _width() or shutil.get_terminal_size().columns
        ascii_only = not (sys.stdout.encoding or "").lower().startswith("utf")
        say(*long_lines(names, rows, width=width, line="-" if ascii_only else "─"))
        return
    from autotuner.report.tables import table_of

    print_table(table_of(names, rows))


def _width() -> int | None:
    """Columns of what is printed, None for the terminal's: a pipe has no width to wrap at."""
    return None if sys.stdout.isatty() or "COLUMNS" in os.environ else PIPE_WIDTH


def _symbol_either_way(command: Command, *, required: bool) -> Command:
    @functools.wraps(command)
    def with_symbol(*args: Any, positional: str | None, named: str | None, **options: Any) -> Any:
        if positional is not None and named is not None:
            raise UsageError(f"give one symbol, not {positional!r} and --symbol {named!r}")
        given = named if positional is None else positional
        if given is None and required:
            context = click.get_current_context()
            raise UsageError(f"name a symbol: `autotune {context.info_name} AMD`")
        return command(*args, symbol=None if given is None else parse_symbol(given), **options)

    with_argument = click.argument(
        "positional", required=False, metavar="[SYMBOL]", shell_complete=stored_symbols
    )(with_symbol)
    with_option = click.option(
        "--symbol", "named", metavar="SYMBOL", shell_complete=stored_symbols, help="The same as SYMBOL."
    )(with_argument)
    return cast("Command", with_option)
