"""``autotune dashboard``: what every symbol runs, how sure that is, and what production sees, in a browser."""

from __future__ import annotations

import contextlib
import os
import secrets
import webbrowser

import click

from autotuner.cli.options import db_option, need, note, warn_of_password
from autotuner.errors import UsageError
from autotuner.paths import store_location

TOKEN_VARIABLE = "AUTOTUNE_DASHBOARD_TOKEN"  # noqa: S105 - its name
_SHORTEST_TOKEN = 16


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to serve.")
@click.option(
    "--port", type=click.IntRange(0, 65_535), default=8484, show_default=True, help="0: any that is free."
)
@click.option("--browser", is_flag=True, help="Open the page in a browser, too.")
@click.option(
    "--allow-actions",
    is_flag=True,
    help=f"Let who knows the token roll back, pin and tune; {TOKEN_VARIABLE} or one that is printed.",
)
@db_option
def dashboard_command(host: str, port: int, browser: bool, allow_actions: bool, db: str | None) -> None:
    """Look at every symbol in a browser (extra "web"), on 127.0.0.1, without a network. Ctrl-C ends it.

    Pages follow what happens meanwhile. Nothing can be changed from them unless --allow-actions is given. The daemon
    serves the same pages where its configuration has an address under http.

    \b
    autotune dashboard
    autotune dashboard --port 0 --browser
    autotune dashboard --allow-actions
    """
    from autotuner.store import Store
    from autotuner.web.server import EXTRA, listening, server_of

    need("web", *EXTRA)
    from autotuner.web.site import Site

    warn_of_password(db)
    place, token = store_location(db), _token() if allow_actions else None
    with Store(place, create=False):
        pass  # a store that is not there or cannot be read is said here rather than on a page
    with listening(host, port, f"{host} port {port}") as listener:
        shown = f"[{host}]" if ":" in host else host
        address = f"http://{shown}:{listener.getsockname()[1]}/"
        note(f"dashboard at {address}, Ctrl-C ends it")
        if token is not None:
            known = f"the value of {TOKEN_VARIABLE}" if os.environ.get(TOKEN_VARIABLE) else token
            note(f"log in at {address}login with the token: {known}")
        if browser:
            webbrowser.open(address)
        with contextlib.suppress(KeyboardInterrupt):
            server_of(Site(location=place, host=host, token=token)).run(sockets=[listener])


def _token() -> str:
    given = os.environ.get(TOKEN_VARIABLE, "")
    if given and len(given) < _SHORTEST_TOKEN:
        raise UsageError(f"{TOKEN_VARIABLE}: a token has at least {_SHORTEST_TOKEN} characters")
    return given or secrets.token_urlsafe(24)
