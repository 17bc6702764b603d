"""``autotune studies``: the searches behind the settings, in optuna-dashboard."""

from __future__ import annotations

import contextlib
import webbrowser

import click

from autotuner.cli.options import db_option, need, note
from autotuner.paths import store_location


@click.command()
@click.option(
    "--port", type=click.IntRange(0, 65_535), default=8080, show_default=True, help="0: any that is free."
)
@click.option("--browser", is_flag=True, help="Open the page in a browser, too.")
@db_option
def studies_command(port: int, browser: bool, db: str | None) -> None:
    """Look at the searches behind the settings with optuna-dashboard (extra "studies"), on 127.0.0.1.

    Shows the database of the studies, a file beside the store or a schema of its own on its server. Nothing can
    be changed from the page, and the settings that production reads are not in it. Ctrl-C ends it.

    \b
    autotune studies
    autotune studies --port 0 --browser
    """
    need("studies", "optuna_dashboard")
    from autotuner.web.studies import studies_server

    with studies_server(store_location(db), port) as server:
        address = f"http://127.0.0.1:{server.server_port}/dashboard/"
        note(f"studies at {address}, Ctrl-C ends it")
        if browser:
            webbrowser.open(address)
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()
