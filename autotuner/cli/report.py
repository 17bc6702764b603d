"""``autotune report``: what is known of symbols, as a page, as Markdown, as CSV or as pictures."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from autotuner.cli.options import SYMBOL, db_option, need, note, opened_store, say
from autotuner.errors import AutotuneError, UsageError
from autotuner.paths import store_location

if TYPE_CHECKING:
    from autotuner.report.symbol_view import SymbolView
    from autotuner.store import Store


@click.command()
@click.argument("symbols", nargs=-1, type=SYMBOL)
@click.option(
    "--html",
    "page",
    type=click.Path(dir_okay=False, path_type=Path),
    help='One page that needs no network (extra "web").',
)
@click.option("--markdown", is_flag=True, help="Print Markdown, to commit; the default.")
@click.option("--csv", "as_csv", is_flag=True, help="Print one row a trial.")
@click.option(
    "--png",
    "pictures",
    type=click.Path(file_okay=False, path_type=Path),
    help='Folder for the charts as pictures (extra "png", and Chrome or Chromium).',
)
@db_option
def report_command(
    symbols: tuple[str, ...],
    page: Path | None,
    markdown: bool,
    as_csv: bool,
    pictures: Path | None,
    db: str | None,
) -> None:
    """Report on SYMBOLS, by default on all: four tables by compile mode, what to run in which use case, a checklist,
    and for each symbol its charts, all from what is stored. Nothing is measured.

    \b
    autotune report --html report.html
    autotune report AMD BTCUSD --markdown > REPORT.md
    autotune report --csv > trials.csv
    """
    if markdown and as_csv:
        raise UsageError("--markdown and --csv both print: give one of them")
    if page is not None:
        need("web", "jinja2", "plotly")
    if pictures is not None:
        need("png", "plotly", "kaleido")
    with opened_store(store_location(db)) as store:
        views = _views(store, symbols)
    now = datetime.now(UTC)
    try:
        _write(views, now, page, pictures)
    except OSError as error:
        raise AutotuneError(f"{error.filename or page or pictures}: {error.strerror or error}") from None
    if as_csv:
        from autotuner.report.text_reports import csv_report

        click.echo(csv_report(views), nl=False)
    elif markdown or (page is None and pictures is None):
        from autotuner.report.text_reports import markdown_report

        say(markdown_report(views, made_at=now))


def _write(views: list[SymbolView], now: datetime, page: Path | None, pictures: Path | None) -> None:
    if page is not None:
        from autotuner.report.html_report import html_report
        from storage.whole_files import written_whole

        with written_whole(page, mode=0o644) as aside:
            aside.write_text(html_report(views, made_at=now), encoding="utf-8")
        note(f"{page}: {', '.join(view.symbol for view in views)}")
    if pictures is not None:
        from autotuner.report.pictures import write_pictures

        for path in write_pictures(views, pictures):
            note(str(path))


def _views(store: Store, symbols: tuple[str, ...]) -> list[SymbolView]:
    """What is known of each; of all the store's, one that cannot be read is named and left out."""
    from autotuner.report.symbol_view import symbol_view

    if symbols:
        return [symbol_view(store, symbol) for symbol in dict.fromkeys(symbols)]
    found = []
    for symbol in sorted({record.symbol for record in store.records.active_promotions()}):
        try:
            found.append(symbol_view(store, symbol))
        except AutotuneError as error:
            note(f"left out: {error}")
    if not found:
        raise AutotuneError(
            "no symbol has active settings to report on: `autotune run --symbol AMD` tunes one"
        )
    return found
