"""Where things are kept: the store, its snapshot, Optuna's own tables, compile caches and the spool."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

from autotuner.errors import UsageError
from storage.address import Address, parse_address, sqlite_url
from storage.errors import StoreUnavailable
from toto_core.settings import RuntimeSettings

DATABASE_VARIABLE = "AUTOTUNE_DB"
CACHE_VARIABLE = "AUTOTUNE_CACHE"
CONFIG_VARIABLE = "AUTOTUNE_CONFIG"
CONFIG_NAME = "autotune.toml"
STUDIES_SCHEMA = "autotune_studies"
"""Where in a server's database Optuna's tables lie."""


def store_location(explicit: str | None = None, environ: Mapping[str, str] | None = None) -> str:
    """The store's path or URL: ``explicit``, else ``AUTOTUNE_DB``, else ``autotune.db`` in the user data folder.

    Every way to write a place comes out in one form. Raises ``StoreUnavailable`` for what is none.
    """
    chosen = explicit or (os.environ if environ is None else environ).get(DATABASE_VARIABLE)
    if not chosen:
        return str(data_folder() / "autotune.db")
    address = parse_address(chosen)
    if address.path is None or address.timeout_s is not None:
        return address.url or f"{sqlite_url(Path(str(address.path)))}?timeout={address.timeout_s}"
    plain = str(address.path)
    return plain if _names(plain, address) else sqlite_url(Path(plain))


def _names(location: str, address: Address) -> bool:
    """Whether a location is read as this address again: quotes and blanks at the ends of a name are left out."""
    with contextlib.suppress(StoreUnavailable):
        return parse_address(location) == address
    return False


def is_file(store: str) -> bool:
    """Whether the store is a SQLite file rather than a server's URL. Raises ``StoreUnavailable`` for neither."""
    return parse_address(store).path is not None


def store_path(store: str) -> Path:
    """The path of a store that is a file. Raises ``StoreUnavailable`` for one that is none."""
    path = parse_address(store).path
    if path is None:
        raise StoreUnavailable("this store is on a server and has no path")
    return path


def snapshot_path(store: str) -> Path:
    """The snapshot that production reads: beside a file store, in the user data folder for a server."""
    address = parse_address(store)
    if address.path is not None:
        return address.path.with_name(f"{address.path.stem}.snapshot.db")
    digest = hashlib.sha256(str(address.url).encode()).hexdigest()[:12]
    return data_folder() / f"autotune-{digest}.snapshot.db"


def studies_url(store: str) -> str:
    """Optuna's own tables: a second file, so that a browser of studies can never lock the store.

    On a server, a schema of their own in the same database, which the connections to this URL see alone.
    """
    address = parse_address(store)
    if address.path is None:
        url = str(address.url)
        return f"{url}{'&' if '?' in url else '?'}options=-csearch_path%3D{STUDIES_SCHEMA}"
    return sqlite_url(studies_path(address.path.absolute()))


def studies_path(store: Path) -> Path:
    """The file of the studies that belong to a store's file."""
    return store.with_name(f"{store.stem}-studies.db")


def spool_folder(store: str) -> Path:
    """Where production leaves notes (quarantine, telemetry) for the tuner to take in."""
    path = snapshot_path(store)
    return path.with_name(f"{path.name.removesuffix('.snapshot.db')}-spool")


def config_path(explicit: Path | None = None) -> Path | None:
    """``explicit``, else ``AUTOTUNE_CONFIG``, else ``autotune.toml`` in this folder, else None."""
    named = explicit or os.environ.get(CONFIG_VARIABLE)
    if named:
        return Path(named)
    here = Path(CONFIG_NAME)
    return here if here.exists() else None


def cache_folder(environ: Mapping[str, str] | None = None) -> Path:
    """Compile caches: ``AUTOTUNE_CACHE``, else the user cache folder; never a guessable one in /tmp.

    Raises ``UsageError`` for a user without a home folder.
    """
    chosen = (os.environ if environ is None else environ).get(CACHE_VARIABLE)
    if chosen:
        try:
            return Path(chosen).expanduser()
        except RuntimeError:
            raise UsageError(
                f"{CACHE_VARIABLE}={chosen}: there is no such user's home folder; name a folder in {CACHE_VARIABLE}"
            ) from None
    import platformdirs

    return Path(platformdirs.user_cache_dir("autotune", appauthor=False)) / "compile"


def inductor_folder(artifacts: Path) -> Path:
    """Where below a folder of artifacts torch keeps what it compiles just in time."""
    return artifacts / "inductor"


def packages_folder(artifacts: Path) -> Path:
    """Where below a folder of artifacts the graphs lie that were compiled ahead of time."""
    return artifacts / "packages"


def data_folder() -> Path:
    """The user data folder of autotune; not created here."""
    import platformdirs

    return Path(platformdirs.user_data_dir("autotune", appauthor=False))


def headers_folder() -> Path:
    """Where torch's C++ headers lie parsed, for every build on this machine; some 300 MB."""
    return cache_folder() / "headers"


def trials_folder(environment: str, workload: str, model: str) -> Path:
    """Where trials of one environment (fingerprint), workload (signature) and model (digest) keep what they compiled.

    The digest is in it because a folder of a model keeps its name when its weights change.
    """
    return cache_folder() / f"trials-{environment}-{workload}-{model[:16]}"


def answer_file(artifacts: Path, trials: str) -> Path:
    """Where a folder of artifacts keeps what they answered when built; ``trials`` is ``trials_folder``'s name."""
    return artifacts / "answers" / trials


def trial_artifacts(caches: Path, settings: RuntimeSettings) -> Path:
    """Where below ``caches`` the trials of a configuration keep what they compiled."""
    return caches / hashlib.sha256(settings.key.encode()).hexdigest()[:16]


def holds_artifacts(artifacts: Path) -> bool:
    """Whether an earlier process left in this folder what it compiled."""
    return any(path.is_file() for path in artifacts.rglob("*"))
