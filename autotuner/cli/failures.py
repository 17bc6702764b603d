"""Turns the packages' own errors into one line on stderr and an exit code."""

from __future__ import annotations

import contextlib
import errno
import io
import logging
import os
import sys
import threading
import warnings
from collections.abc import Iterator
from types import TracebackType

import click

from autotuner.errors import AutotuneError, UsageError, plain_line, visible
from storage.errors import StorageError
from toto_core.settings import SettingsError
from toto_core.symbols import SymbolError

_NOT_LOADED_HERE = {"CheckpointError", "SeriesError", "DeviceError", "RequestError", "NoForecastError"}
"""Errors of modules that most commands do not load, recognised without loading those."""
_OUTPUT_FAILS = {errno.ENOSPC, errno.EIO, errno.EPIPE, errno.EBADF}


@contextlib.contextmanager
def one_line_failures() -> Iterator[None]:
    """Exit code 2 for what was asked wrongly, 1 for what failed; unexpected errors keep their traceback."""
    try:
        yield
    except (UsageError, SymbolError, SettingsError) as error:
        raise _Refused(error) from error
    except (AutotuneError, StorageError) as error:
        raise _Failed(error) from error
    except click.UsageError as error:  # click quotes what was typed
        error.message = visible(error.message)  # type: ignore[misc]
        raise
    except (ValueError, RuntimeError) as error:
        if type(error).__name__ not in _NOT_LOADED_HERE:
            raise
        raise _Failed(error) from error


@contextlib.contextmanager
def printing_what_can_be_printed() -> Iterator[None]:
    """Escape what a terminal's encoding lacks, and end with one line when the output cannot be written."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        yield
    except OSError as error:
        if error.errno not in _OUTPUT_FAILS:
            raise
        with contextlib.suppress(OSError):
            click.echo(f"Error: the output cannot be written: {error.strerror}", err=True)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # Python writes out the rest when it ends
        sys.exit(1)


def tell_safely() -> None:
    """From now on tracebacks, warnings and what libraries log show no password and steer no terminal.

    What is chained to an exception of ours, such as a driver's, is printed with it.
    """
    sys.excepthook = _print_traceback
    threading.excepthook = _print_threads_traceback
    as_before = warnings.formatwarning
    warnings.formatwarning = lambda *about, **more: visible(as_before(*about, **more))
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(_Formatter())


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return visible(super().format(record))


def _print_threads_traceback(failed: threading.ExceptHookArgs) -> None:
    if failed.exc_type is not SystemExit:
        _print_traceback(failed.exc_type, failed.exc_value, failed.exc_traceback)


def _print_traceback(
    kind: type[BaseException], error: BaseException | None, trace: TracebackType | None
) -> None:
    import traceback

    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(visible("".join(traceback.format_exception(kind, error, trace))))


class _Failed(click.ClickException):
    def __init__(self, error: Exception) -> None:
        super().__init__(plain_line(str(error)))


class _Refused(_Failed):
    exit_code = 2
