"""Turns the packages' own errors into one line on stderr and an exit code."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import click

from autotuner.errors import AutotuneError, UsageError
from storage.errors import StorageError
from toto_core.settings import SettingsError
from toto_core.symbols import SymbolError


@contextlib.contextmanager
def one_line_failures() -> Iterator[None]:
    """Exit code 2 for what was asked wrongly, 1 for what failed; unexpected errors keep their traceback."""
    try:
        yield
    except (UsageError, SymbolError, SettingsError) as error:
        raise _Refused(error) from error
    except (AutotuneError, StorageError) as error:
        raise _Failed(error) from error
    except ValueError as error:
        # Errors of modules that most commands do not load, recognised without loading those.
        if type(error).__name__ not in {"CheckpointError", "SeriesError", "DeviceError", "RequestError"}:
            raise
        raise _Failed(error) from error


class _Failed(click.ClickException):
    def __init__(self, error: Exception) -> None:
        super().__init__(" ".join(str(error).split()))


class _Refused(_Failed):
    exit_code = 2
