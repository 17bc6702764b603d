"""``autotune run``: tune one or more symbols."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from autotuner.cli import options
from autotuner.cli.due import due_now, each_as_before
from autotuner.cli.fleet import Asked, tune_on
from autotuner.cli.fleet_nodes import on_options, refuse_contradictions
from autotuner.cli.price_options import price_options
from autotuner.cli.run_options import RunOptions, TunedAs, requests_of
from autotuner.errors import AutotuneError, UsageError
from autotuner.files import read_symbols
from autotuner.paths import store_location
from storage.errors import StorageError

if TYPE_CHECKING:
    from autotuner.cli.live_progress import LiveProgress
    from autotuner.cli.progress import PlainProgress
    from autotuner.store import Store
    from autotuner.tuning.request import TuneRequest


on_cluster, of_environments = on_options("Tune")


@click.command()
@click.option(
    "--symbol", "symbols", type=options.SYMBOL, multiple=True, help="Symbol to tune; may be given again."
)
@click.option("--all", "everything", is_flag=True, help="Every symbol that has prices.")
@click.option(
    "--symbols-file",
    type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path),
    help="One symbol a line; # starts a comment; - reads standard input.",
)
@click.option(
    "--due",
    is_flag=True,
    help="Only what is due: never tuned, a week old, or another environment; with --all also every symbol in the "
    "store. Goes on as with --as-before.",
)
@click.option(
    "--as-before",
    is_flag=True,
    help="Prices, workload and profile that the symbol was last promoted with, where no option says otherwise.",
)
@price_options
@click.option("--profile", help="production, accuracy, throughput or research [default: production].")
@click.option(
    "--model",
    "models",
    multiple=True,
    metavar="NAME",
    help="toto-mini, a folder in the official layout, or a hub id [default: toto-mini]. Given again: the model that "
    "forecasts the symbol best, and of equals the fastest.",
)
@click.option(
    "--max-mae",
    type=options.ABOVE_ZERO,
    help="Of several models, refuse those with a larger error, in price.",
)
@click.option(
    "--max-quantile-loss",
    type=options.ABOVE_ZERO,
    help="The same for the weighted quantile loss, as a share of price.",
)
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
    "--concurrency",
    type=click.IntRange(1, 1000),
    help="Processes that forecast at the same time on the machine: timings are of the crowd [default: 1].",
)
@click.option(
    "--deadline-ms",
    type=options.ABOVE_ZERO,
    help="Refuse settings that miss this deadline in more than 1 % of calls.",
)
@click.option(
    "--memory-limit-mb",
    type=options.COUNT,
    help="Refuse settings whose process holds more [default: none, in a container 60 % of its memory].",
)
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
    "--threads",
    type=options.COUNT,
    help="Most CPU threads of a process [default: all CPUs, or a container's quota, but one].",
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
@on_cluster
@of_environments
@click.option("--exit-code", is_flag=True, help="Exit with 3 when nothing new was promoted.")
@options.measuring_options(
    None, "Seconds for each symbol, proof included; auto: at most 300 or, where builds take long, 900."
)
def run_command(
    symbols: tuple[str, ...],
    everything: bool,
    symbols_file: Path | None,
    due: bool,
    as_before: bool,
    on: str | None,
    environments: tuple[str, ...],
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
    autotune run --symbol AMD --model toto-mini --model ./my-model
    autotune run --all --due --on ray

    Ctrl-C keeps what is measured; the same command goes on from there.
    """
    from autotuner.store import Store

    run_options = RunOptions(**values)
    if run_options.replay and not db:
        raise UsageError("--replay writes recorded answers: name a store of their own with --db")
    refuse_contradictions(on, environments, run_options)
    signal.signal(signal.SIGTERM, _as_interrupt)
    wanted = named_symbols(symbols, everything, symbols_file)
    left_out = say_passed_over(run_options.prices.path) if everything else ()
    with Store(store_location(db)) as store:
        options.clear_up_first(store.location)
        wanted = wanted or all_symbols(run_options.prices.path, store, due=due)
        if on is not None:
            asked = Asked(
                on=on,
                symbols=wanted,
                environments=environments,
                options=run_options,
                due=due,
                as_before=as_before,
            )
            document, documents, failures = tune_on(asked, store, quiet=as_json)
        else:
            subjects = _subjects(wanted, run_options, store, due=due, as_before=as_before)
            documents, failures = _tune_all(subjects, run_options, store, quiet=as_json)
            document = {"symbols": documents, "failed": failures}
    if as_json:
        # One symbol may be due for several profiles and workloads.
        single = on is None and not everything and len(wanted) == len(documents) == 1
        passed = {"passed_over": list(left_out)} if everything else {}
        options.print_json(documents[0] if single else document | passed)
    _end(documents, failures, exit_code=exit_code)


def _subjects(
    symbols: Sequence[str], run_options: RunOptions, store: Store, *, due: bool, as_before: bool
) -> list[tuple[str, TunedAs | None]]:
    """Each symbol to tune here, and as what it was tuned before where that counts."""
    if due:
        return due_now(symbols, run_options, store)
    if as_before:
        return list(each_as_before(symbols, run_options, store))
    return [(symbol, None) for symbol in symbols]


def _end(documents: list[dict[str, Any]], failures: list[dict[str, str]], *, exit_code: bool) -> None:
    if failures:
        raise AutotuneError("; ".join(f"{f['symbol']}: {f['reason']}" for f in failures))
    if exit_code and not any(document["promoted"] for document in documents):
        raise click.exceptions.Exit(3)


def _tune_all(
    subjects: Sequence[tuple[str, TunedAs | None]], run_options: RunOptions, store: Store, *, quiet: bool
) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """Documents of the symbols that were tuned and reasons of those that were not; one never ends the rest."""
    from autotuner.report.run_view import run_lines

    documents: list[dict[str, Any]] = []
    failures: list[dict[str, str]] = []
    for symbol, before in subjects:
        try:
            document = _tune(requests_of(symbol, run_options, before), run_options, store, quiet=quiet)
        except KeyboardInterrupt:
            raise AutotuneError(
                f"{symbol}: interrupted; what was measured is stored, and the same command goes on from there"
            ) from None
        except UsageError:
            raise
        except (AutotuneError, StorageError, ValueError) as error:
            if len(subjects) == 1:
                raise
            failures.append({"symbol": symbol, "reason": " ".join(str(error).split())})
            options.note(f"{symbol}: {error}")
            continue
        documents.append(document)
        if not quiet:
            options.say(*run_lines(document))
    return documents, failures


def _tune(
    requests: tuple[TuneRequest, ...], run_options: RunOptions, store: Store, *, quiet: bool
) -> dict[str, Any]:
    if len(requests) > 1:
        from autotuner.tuning.models import ModelLimits, tune_models

        limits = ModelLimits(mae=run_options.max_mae, wql=run_options.max_quantile_loss)
        with _progress(quiet=quiet) as progress:
            return tune_models(requests, store, progress, limits)
    from autotuner.tuning.run import tune

    (request,), plan = requests, None
    if run_options.replay:
        from autotuner.commands.replay import replay_plan

        request, plan = replay_plan(request, run_options.replay)
    with _progress(quiet=quiet) as progress:
        return tune(request, store, progress, plan)


def named_symbols(symbols: tuple[str, ...], everything: bool, symbols_file: Path | None) -> tuple[str, ...]:
    """The symbols that the options name, none for --all. Raises ``UsageError``."""
    if sum((bool(symbols), everything, symbols_file is not None)) != 1:
        raise UsageError("name the symbols with --symbol, with --symbols-file, or say --all")
    return read_symbols(symbols_file) if symbols_file else tuple(dict.fromkeys(symbols))


def all_symbols(data: Path | None, store: Store, *, due: bool) -> tuple[str, ...]:
    """Every symbol with prices; for what is due also every symbol of the store."""
    from autotuner.daemon.situation import symbols_to_keep
    from toto_core.series import available_symbols

    available = symbols_to_keep(store, data) if due else available_symbols(data)
    if not available:
        raise AutotuneError(f"{data}: holds no <SYMBOL>.csv, .csv.gz or .parquet")
    return available


def say_passed_over(data: Path | None) -> tuple[str, ...]:
    """Name the files of a folder that are no price file."""
    from toto_core.series import passed_over

    left_out = passed_over(data)
    for name in left_out:
        options.note(f"{name!a}: passed over: price files are called <SYMBOL>.csv, .csv.gz or .parquet")
    return left_out


def _progress(*, quiet: bool) -> AbstractContextManager[LiveProgress | PlainProgress]:
    from autotuner.cli.live_progress import LiveProgress
    from autotuner.cli.progress import PlainProgress
    from autotuner.cli.safe_console import SafeConsole

    if quiet or not sys.stderr.isatty():
        return nullcontext(PlainProgress())
    return LiveProgress(SafeConsole(stderr=True))


def _as_interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
