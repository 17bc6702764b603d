"""Environment variables that decide anything: ``AUTOTUNE_*`` and ``TOTO_*``."""

from __future__ import annotations

import json
import os
import warnings
from unittest import mock

from autotuner import paths
from autotuner.daemon.config import read_config
from autotuner.daemon.loop import settle
from autotuner.daemon.service_manager import watchdog_seconds
from autotuner.errors import AutotuneError, UsageError
from autotuner.serving.lookup import lookup
from storage.errors import StorageError
from tests.faults.fuzzing import json_mutation, scratch
from tests.faults.fuzzing.verdicts import check_line, refused_with
from toto_core import compile_config
from toto_core.container import container_limits

SECONDS = 1.0
mutated = json_mutation.document


def seeds() -> tuple[bytes, ...]:
    said = (
        {"AUTOTUNE_DB": "autotune.db", "AUTOTUNE_CACHE": "~/cache", "AUTOTUNE_CONFIG": "autotune.toml"},
        {"TOTO_COMPILE_MODE": "max-autotune", "TOTO_COMPILE": "1", "TOTO_DISABLE_COMPILE": "0"},
        {"TOTO_COMPILE_BACKEND": "inductor", "REAL_TOTO_COMPILE_MODE": "default"},
        {
            "AUTOTUNE_DAEMON__SCHEDULE": "17 3 * * *",
            "AUTOTUNE_DAEMON__NICE": "5",
            "AUTOTUNE_SYSTEM_ROOT": "/",
        },
        {"AUTOTUNE_SYMBOLS": '{"AMD": {"profile": "accuracy"}}', "AUTOTUNE_DEFAULTS__CONTEXT_LENGTH": "512"},
        {"AUTOTUNE_ENGINES__CHRONOS2__PYTHON": "/opt/bin/python", "AUTOTUNE_PRICES__DECIMAL": ","},
        {"AUTOTUNE_DAEMON__QUIET": '["09:30-16:00 mon-fri"]', "WATCHDOG_USEC": "1000000"},
    )
    return tuple(json.dumps(each).encode() for each in said)


def one(data: bytes) -> None:
    given = _variables(data)
    if given is None:
        return
    home = {"HOME": str(scratch.folder("variables")), "PATH": os.environ.get("PATH", "")}
    with mock.patch.dict(os.environ, home | given, clear=True):
        _read()


def _read() -> None:
    with refused_with(UsageError):
        settle(read_config(None))
    with refused_with(StorageError):
        place = paths.store_location()
        paths.spool_folder(place)
    with refused_with(AutotuneError):
        paths.config_path()
        paths.cache_folder()
    for reason in lookup("AMD").reasons:
        check_line(reason, "a reason")
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        compile_config.settings_from_environment(os.environ)
        compile_config.defaults(torch_compile=True)
    for each in warned:
        check_line(str(each.message), "a warning")
    container_limits()
    watchdog_seconds()


def _variables(data: bytes) -> dict[str, str] | None:
    """What a process can be given at all; None for what is no table of texts."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict):
        return None
    found = {}
    for name, each in value.items():
        text = each if isinstance(each, str) else json.dumps(each)
        bare = text.replace("\0", "")
        if name and not set(name) & {"=", "\0"} and _fits(name) and _fits(bare):
            found[name] = bare
    return found


def _fits(text: str) -> bool:
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        return False
    return True
