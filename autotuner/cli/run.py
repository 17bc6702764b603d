"""``autotune run``: tune one or more symbols."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from autotuner.cli import options
from autotuner.cli.run_options import RunOptions, request_of
from autotuner.errors import AutotuneError, UsageError
from autotuner.files import read_symbols
from autotuner.paths import store_location
from storage.errors import StorageError

if TYPE_CHECKING:
    from autotuner.cli.progress import LiveProgress, PlainProgress
    from autotuner.store import Store


@click.command()
@click.option(
    "--symbol", "symbols", type=options.SYMBOL, multiple=True, help="Symbol to tune; may be given again."
)
@click.option("--all", "everything", is_flag=True, help="Every symbol that has prices.")
@click.option("--symbols-file", type=options.EXISTING_FILE, help="One symbol a line; # starts a comment.")
@click.option(
    "--due", is_flag=True, help="Only symbols that are due: never tuned, a week old, or another environment."
)
@options.data_option
@click.option(
    "--profile", default="production", show_default=True, help="production, accuracy, throughput or research."
)
@click.option("--model", help="toto-mini, a folder in the official layout, or a hub id [default: toto-mini].")
@click.option(
    "--context-length", type=options.COUNT, help="Time steps of history per request [default: 512]."
)
@click.option("--prediction-length", type=options.COUNT, help="Time steps to forecast [default: 8].")
@click.option(
    "--num-samples", type=click.IntRange(min=0), help="Sample paths, 0 for the mean path [default: 256]."
)
@options.workload_option
@click.option(
    "--calls-per-process", type=options.COUNT, help="Calls a process makes in its life [default: 10000]."
)
@click.option(
    "--deadline-ms",
    type=options.ABOVE_ZERO,
    help="Refuse settings that miss this deadline in more than 1 % of calls.",
)
@click.option("--memory-limit-mb", type=options.COUNT, help="Refuse settings whose process holds more.")
@click.option(
    "--trials", type=options.COUNT, default=40, show_default=True, help="Most new measurements of a symbol."
)
@click.option("--because", metavar="TEXT", help="Why it is tuned again, for the ledger.")
@click.option(
    "--trigger",
    "triggers",
    metavar="KIND",
    multiple=True,
    help="Kind of that reason, as the daemon names it.",
)
@click.option(
    "--canary",
    type=click.FloatRange(min=0, max=1, max_open=True),
    default=0.0,
    help="Share of the processes that gets a new winner first; the daemon confirms it or takes it back.",
)
@click.option(
    "--threads", type=options.COUNT, help="Most CPU threads of a process [default: all CPUs but one]."
)
@click.option("--seed", default=0, show_default=True, help="Seed of the search and of the order of rounds.")
@click.option(
    "--resume/--no-resume",
    default=True,
    show_default=True,
    help="Go on with an unfinished run of the same kind.",
)
@click.option("--fresh", is_flag=True, help="Measure everything again instead of taking up what is known.")
@click.option(
    "--replay",
    type=options.EXISTING_FILE,
    help="Answer trials from a table of recorded measurements; needs --db.",
)
@click.option("--exit-code", is_flag=True, help="Exit with 3 when nothing new was promoted.")
@options.measuring_options(300.0, "Seconds for each symbol, proof included.")
def run_command(
    symbols: tuple[str, ...],
    everything: bool,
    symbols_file: Path | None,
    due: bool,
    exit_code: bool,
    as_json: bool,
    db: str | None,
    **values: Any,
) -> None:
    """Tune symbols: search, prove the winner against the champion, store it.

    \b
    autotune run --symbol AMD
    autotune run --symbol AMD --symbol BTCUSD --profile accuracy --timeout 600
    autotune run --all --data ./prices --json > result.json

    Ctrl-C keeps what is measured; the same command goes on from there.
    """
    from autotuner.store import Store

    run_options = RunOptions(**values)
    if run_options.replay and not db:
        raise UsageError("--replay writes recorded answers: name a store of their own with --db")
    wanted = _symbols(symbols, everything, symbols_file, run_options.data)
    signal.signal(signal.SIGTERM, _as_interrupt)
    with Store(store_location(db)) as store:
        if due:
            wanted = _due(wanted, store, run_options.device)
        documents, failures = _tune_all(wanted, run_options, store, quiet=as_json)
    if as_json:
        single = len(wanted) == 1 and not everything and documents
        options.print_json(documents[0] if single else {"symbols": documents, "failed": failures})
    _end(documents, failures, exit_code=exit_code)


def _end(documents: list[dict[str, Any]], failures: list[dict[str, str]], *, exit_code: bool) -> None:
    if failures:
        raise AutotuneError("; ".join(f"{f['symbol']}: {f['reason']}" for f in failures))
    if exit_code and not any(document["promoted"] for document in documents):
        raise click.exceptions.Exit(3)


def _tune_all(
    symbols: Sequence[str], run_options: RunOptions, store: Store, *, quiet: bool
) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """Documents of the symbols that were tuned and reasons of those that were not; one never ends the rest."""
    from autotuner.report.run_view import run_lines

    documents: list[dict[str, Any]] = []
    failures: list[dict[str, str]] = []
    for symbol in symbols:
        try:
            document = _tune(symbol, run_options, store, quiet=quiet)
        except KeyboardInterrupt:
            raise AutotuneError(
                f"{symbol}: interrupted; what was measured is stored, and the same command goes on from there"
            ) from None
        except UsageError:
            raise
        except (AutotuneError, StorageError, ValueError) as error:
            if len(symbols) == 1:
                raise
            failures.append({"symbol": symbol, "reason": " ".join(str(error).split())})
            options.note(f"{symbol}: {error}")
            continue
        documents.append(document)
        if not quiet:
            click.echo("\n".join(run_lines(document)))
    return documents, failures


def _tune(symbol: str, run_options: RunOptions, store: Store, *, quiet: bool) -> dict[str, Any]:
    from autotuner.tuning.run import tune

    request = request_of(symbol, run_options)
    plan = None
    if run_options.replay:
        from autotuner.commands.replay import replay_plan

        request, plan = replay_plan(request, run_options.replay)
    with _progress(quiet=quiet) as progress:
        return tune(request, store, progress, plan)


def _symbols(
    symbols: tuple[str, ...], everything: bool, symbols_file: Path | None, data: Path | None
) -> tuple[str, ...]:
    if sum((bool(symbols), everything, symbols_file is not None)) != 1:
        raise UsageError("name the symbols with --symbol, with --symbols-file, or say --all")
    if symbols:
        return tuple(dict.fromkeys(symbols))
    if symbols_file:
        return read_symbols(symbols_file)
    from toto_core.series import available_symbols

    available = available_symbols(data)
    if not available:
        raise AutotuneError(f"{data}: holds no <SYMBOL>.csv, .csv.gz or .parquet")
    return available


def _due(symbols: Sequence[str], store: Store, device: str) -> tuple[str, ...]:
    from autotuner.daemon.situation import why_due
    from autotuner.environment import current_environment

    found, environment, now = [], current_environment(device), datetime.now(UTC)
    for symbol in symbols:
        reason = why_due(store, symbol, environment=environment, now=now)
        options.note(f"{symbol}: {'due: ' + reason if reason else 'not due'}")
        if reason:
            found.append(symbol)
    return tuple(found)


def _progress(*, quiet: bool) -> AbstractContextManager[LiveProgress | PlainProgress]:
    from rich.console import Console

    from autotuner.cli.progress import LiveProgress, PlainProgress

    if quiet or not sys.stderr.isatty():
        return nullcontext(PlainProgress())
    return LiveProgress(Console(stderr=True))


def _as_interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
