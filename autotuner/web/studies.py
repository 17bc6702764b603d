"""Serves optuna-dashboard over the database of the studies: to look, not to change, and from this machine alone."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from optuna.exceptions import OptunaError
from optuna_dashboard import wsgi
from sqlalchemy.exc import SQLAlchemyError

from autotuner.errors import AutotuneError, UsageError, plain_line
from autotuner.paths import STUDIES_SCHEMA, studies_url
from autotuner.search.study_storage import open_storage
from autotuner.web.guard import known_host
from storage.address import parse_address
from storage.patience import at_once

HOST = "127.0.0.1"
REQUEST_SECONDS = 10.0
"""How long a request may take to arrive."""
_MOST_THREADS = 64

Start = Callable[..., Any]
Application = Callable[[dict[str, Any], Start], Iterable[bytes]]


@contextmanager
def studies_server(store: str, port: int) -> Iterator[WSGIServer]:
    """A server of the studies that belong to a store; ``serve_forever`` runs it, ``server_port`` is its port.

    A server's are read in transactions that may not write. Raises ``UsageError`` for a port that is taken,
    ``AutotuneError`` where there are no studies yet or their database cannot be read, ``StorageError`` where a server
    cannot be reached.
    """
    url = studies_url(store)
    file = parse_address(url).path
    if file is not None and not file.is_file():
        raise AutotuneError(f"{file}: no studies yet; `autotune run --symbol AMD` makes one")
    name = str(file or f"the server's schema {STUDIES_SCHEMA}")
    with ExitStack() as stack:
        try:
            with at_once():
                storage = open_storage(url, read_only=True)
                stack.callback(storage.engine.dispose)
                stack.callback(storage.remove_session)
                storage.get_all_studies()
        except (OptunaError, SQLAlchemyError, RuntimeError, AssertionError) as error:
            if _has_none(error):
                raise AutotuneError(
                    f"{name}: no studies yet; `autotune run --symbol AMD` makes one"
                ) from None
            first = str(error.__cause__ or error).partition("\n")[
                0
            ]  # Optuna speaks of a commit that was none
            raise AutotuneError(f"{name}: the studies cannot be read: {plain_line(first)}") from None
        try:
            server = make_server(HOST, port, looking_only(wsgi(storage)), _Server, _Handler)
        except OSError as error:
            raise UsageError(f"port {port} cannot be served: {error.strerror or error}") from None
        yield stack.enter_context(server)


def _has_none(error: Exception) -> bool:
    """Whether a server says that there is no such table."""
    cause = error.__cause__ or error
    return getattr(getattr(cause, "orig", None), "sqlstate", None) == "42P01"


def looking_only(application: Application) -> Application:
    """The application for GET and HEAD, under this machine's own names: what changes a study comes otherwise.

    A page elsewhere that had its name resolve to this machine is refused.
    """

    def answer(environ: dict[str, Any], start: Start) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] not in {"GET", "HEAD"}:
            start("405 Method Not Allowed", [("Content-Type", "text/plain"), ("Allow", "GET, HEAD")])
            return [b"studies are shown here, not changed\n"]
        if not known_host(environ.get("HTTP_HOST", ""), HOST):
            start("421 Misdirected Request", [("Content-Type", "text/plain")])
            return [b"this server is not known by that host name\n"]
        return application(environ, start)

    return answer


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    address_family = socket.AF_INET
    request_queue_size = 64

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._free = threading.BoundedSemaphore(_MOST_THREADS)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._free.acquire()  # who comes when all are taken waits until the slowest is hung up on
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._free.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        return  # a client that went away; the application's own errors are answers


class _Handler(WSGIRequestHandler):
    timeout = REQUEST_SECONDS  # of each read

    def setup(self) -> None:
        super().setup()
        self._late = threading.Timer(REQUEST_SECONDS, self._hang_up)
        self._late.daemon = True
        self._late.start()

    def parse_request(self) -> bool:
        parsed = super().parse_request()
        self._late.cancel()
        if parsed and len(self.headers.get_all("Host", ())) > 1:
            self.send_error(400, "one Host header is wanted")
            return False
        return parsed

    def finish(self) -> None:
        self._late.cancel()
        super().finish()

    def _hang_up(self) -> None:
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name upstream
        return
