"""Serves the pages, metrics and health over HTTP, from this machine alone unless told otherwise."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from importlib.util import find_spec
from typing import TYPE_CHECKING

from autotuner.daemon.config import read_config
from autotuner.errors import UsageError

if TYPE_CHECKING:
    import uvicorn

    from autotuner.daemon.loop import Daemon
    from autotuner.web.site import Site

EXTRA = ("fastapi", "jinja2", "plotly", "uvicorn")
"""What the extra "web" installs."""
_END_SECONDS = 1
"""How long open answers may take once the server is to end: an event stream never ends by itself."""


@contextlib.contextmanager
def serving(daemon: Daemon) -> Iterator[None]:
    """Serve inside the block, where the configuration names an address. Raises ``UsageError``."""
    address = read_config(daemon.config_file).daemon.http
    if not address:
        yield
        return
    missing = [name for name in EXTRA if find_spec(name) is None]
    if missing:
        raise UsageError(
            f"daemon.http {address!r}: {' and '.join(missing)} missing: pip install 'toto-autotune[web]'"
        )
    from autotuner.web.site import Site

    host, port = parse_address(address)
    site = Site(location=daemon.location, host=host, daemon=daemon)
    with listening(host, port, f"daemon.http {address!r}") as listener:
        server = server_of(site)
        thread = threading.Thread(
            target=server.run, kwargs={"sockets": [listener]}, name="autotune-web", daemon=True
        )
        thread.start()
        try:
            yield
        finally:
            server.should_exit = True
            thread.join(timeout=5 * _END_SECONDS)


def server_of(site: Site) -> uvicorn.Server:
    """The server of a site, not running yet; ``run(sockets=[...])`` serves until it is told to end."""
    import uvicorn

    from autotuner.web.app import application
    from autotuner.web.connections import BACKLOG, bounded_protocol, most_connections

    config = uvicorn.Config(
        application(site),
        http=bounded_protocol(most_connections()),
        ws="none",
        backlog=BACKLOG,
        log_level="error",  # what clients do wrong is no line of the daemon's log
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_END_SECONDS,
    )
    return uvicorn.Server(config)


@contextlib.contextmanager
def listening(host: str, port: int, what: str) -> Iterator[socket.socket]:
    """A socket that listens; ``what`` names the address to a person. Raises ``UsageError``."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family)
    except OSError as error:
        raise UsageError(f"{what}: cannot be served: {error.strerror or error}") from None
    with listener:
        yield listener


def parse_address(text: str) -> tuple[str, int]:
    """Host and port of ``"127.0.0.1:9478"`` or ``"[::1]:9478"``. Raises ``UsageError``."""
    host, _, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    host = host[1:-1] if bracketed else host
    if (":" in host) != bracketed:
        raise UsageError(f"daemon.http {text!r}: an IPv6 address stands in brackets, such as [::1]:9478")
    if not host or not port.isdecimal() or not 0 <= int(port) <= 65_535:
        raise UsageError(f"daemon.http {text!r}: must be HOST:PORT, such as 127.0.0.1:9478")
    return host, int(port)
