"""``autotune sync`` and ``autotune share``: settings and compiled code for hosts that trade."""

from __future__ import annotations

import re
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from autotuner.cli.options import ABOVE_ZERO, answer, note, store_options, warn_of_password
from autotuner.errors import AutotuneError, UsageError
from autotuner.machine.signals import set_apart
from autotuner.paths import config_path, store_location

if TYPE_CHECKING:
    from autotuner.commands.sync import Fetch
    from autotuner.sharing.sync import Synced

_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_FILE = click.Path(dir_okay=False, path_type=Path)
_config_option = click.option(
    "--config",
    "config_file",
    type=_FILE,
    help="Configuration [default: AUTOTUNE_CONFIG, else autotune.toml here].",
)


class Duration(click.ParamType[float]):
    """Seconds, or a number with s, m, h or d."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Seconds."""
        found = re.fullmatch(r"(\d{1,9}(?:\.\d{1,6})?) ?([smhd]?)", str(value))
        seconds = float(found[1]) * _UNITS[found[2]] if found else 0.0
        if seconds <= 0:
            self.fail(f"{value!r} is no duration above 0: write 90s, 15m, 6h or 2d", param, ctx)
        return seconds


@click.command()
@click.option("--to", metavar="URL", help="Where to: a folder, file://, s3://, hf:// [default: [share] to].")
@click.option("--key", "key_file", type=_FILE, help="File with the private key [default: [share] key].")
@click.option("--without-artifacts", is_flag=True, help="Settings alone, no compiled code.")
@click.option("--new-key", type=_FILE, help="Make a key pair: the private key goes to this file, and end.")
@_config_option
@store_options
def share_command(
    to: str | None,
    key_file: Path | None,
    without_artifacts: bool,
    new_key: Path | None,
    config_file: Path | None,
    as_json: bool,
    db: str | None,
) -> None:
    """Put a signed release where trading hosts fetch it: the snapshot, and the compiled code that it names.

    What lies there already is not put again. Call it after promotions and every few minutes: hosts tell by its time
    that nothing newer is known. The daemon does, where [share] says where to.

    \b
    autotune share --new-key share.key
    autotune share --to releases --key share.key
    """
    if new_key is not None:
        _make_key(new_key, as_json=as_json)
        return
    from autotuner.commands.share import share_once
    from autotuner.daemon.config import read_config

    settings = read_config(config_path(config_file)).share
    done = share_once(
        store_location(db),
        to or settings.to,
        key_file or settings.key,
        artifacts=settings.artifacts and not without_artifacts,
    )
    for line in done.said:
        note(line)
    answer(
        vars(done),
        f"{done.place}: release {done.sequence}, signed with key {done.key}",
        f"{done.symbols:,} symbols, {done.files:,} files of compiled code for {done.environments} environments; "
        f"{done.put_blobs:,} files and {done.put_bytes / 2**20:,.1f} MB were new there",
        as_json=as_json,
    )


def _make_key(path: Path, *, as_json: bool) -> None:
    from autotuner.sharing.keys import KEY_VARIABLE, make_key

    public = make_key(path)
    answer(
        {"private": str(path), "public": str(public), "key": public.name},
        f"{path}: the private key {public.name}; whoever has it can sign code for every trading host",
        f"{path}.pub, on trading hosts: export {KEY_VARIABLE}={public}",
        as_json=as_json,
    )


@click.command()
@click.option(
    "--from",
    "source",
    metavar="URL",
    help="Release: a folder, https://, s3://, hf://; or a store [default: [sync] from].",
)
@click.option(
    "--artifacts", "artifacts_at", metavar="URL", help="Where compiled code is from, if --from is a store."
)
@click.option("--without-artifacts", is_flag=True, help="Settings alone, no compiled code.")
@click.option(
    "--every", type=ABOVE_ZERO, metavar="SECONDS", help="Go on until told to stop, fetching so often."
)
@click.option(
    "--check", "only_check", is_flag=True, help="Fetch nothing; exit with 1 when the snapshot is too old."
)
@click.option(
    "--max-age", type=Duration(), help="How old the snapshot may be [default: [sync] max_age_hours, 6h]."
)
@click.option("--textfile", type=_FILE, help="Write metrics there, for node_exporter's textfile collector.")
@click.option("--allow-older", is_flag=True, help="Take an older release than the one before.")
@click.option("--replace", is_flag=True, help="Replace a snapshot that the store here has published.")
@_config_option
@store_options
def sync_command(
    source: str | None,
    artifacts_at: str | None,
    without_artifacts: bool,
    every: float | None,
    only_check: bool,
    max_age: float | None,
    textfile: Path | None,
    allow_older: bool,
    replace: bool,
    config_file: Path | None,
    as_json: bool,
    db: str | None,
) -> None:
    """Fetch settings, and the compiled code of this machine's environment, for look-ups that need no network.

    Nothing is used that is not signed with the key in AUTOTUNE_SYNC_KEY or [sync] key, nor what is older than what
    was taken before. What cannot be fetched leaves the snapshot as it is, and exits with 1.

    \b
    autotune sync --from releases
    autotune sync --from postgresql+psycopg://desk/autotune --every 60
    autotune sync --check --max-age 1h
    """
    from autotuner.commands.sync import Fetch
    from autotuner.daemon.config import read_config
    from autotuner.sharing.keys import read_public_keys
    from autotuner.sharing.sync import Rules

    warn_of_password(db)
    in_a_file = "write it to [sync] of an autotune.toml of mode 0600"
    warn_of_password(source, "--from", f"{in_a_file} as from = …")
    warn_of_password(artifacts_at, "--artifacts", f"{in_a_file} as artifacts = …")
    place = store_location(db)
    if only_check:
        _check(place, max_age, as_json=as_json)
        return
    settings = read_config(config_path(config_file)).sync
    if (chosen := source or settings.source) is None:
        raise UsageError("name where from: --from URL, or from = … in [sync] of autotune.toml")
    fetch = Fetch(
        location=place,
        source=chosen,
        keys=read_public_keys(settings.public_keys),
        rules=Rules(max_age_s=max_age or settings.max_age_s, allow_older=allow_older, replace=replace),
        artifacts=not without_artifacts,
        artifacts_at=artifacts_at or settings.artifacts,
    )
    if every is None:
        _fetch(fetch, textfile, as_json=as_json)
    else:
        _go_on(fetch, textfile, every)


def _check(place: str, max_age: float | None, *, as_json: bool) -> None:
    import time

    from autotuner.commands.sync import checked
    from autotuner.serving.snapshot_age import origin_text

    origin, now = checked(place, max_age), time.time()
    answer(
        vars(origin) | {"age_s": origin.age_s(now)},
        f"the snapshot is {origin_text(origin, now)}",
        as_json=as_json,
    )


def _fetch(fetch: Fetch, textfile: Path | None, *, as_json: bool) -> None:
    """Fetch once and tell. Raises ``AutotuneError`` for what could not be fetched, and for what is too old."""
    from autotuner.commands.sync import refuse_old, write_textfile

    try:
        synced = fetch.once()
    except AutotuneError:
        if textfile is not None:
            write_textfile(textfile, fetch.location, went_well=False)
        raise
    refused = synced.taken.said
    if textfile is not None:
        write_textfile(textfile, fetch.location, went_well=not refused)
    _tell(synced, as_json=as_json)
    for line in refused[:-1]:
        note(f"Error: {line}")
    if refused:
        raise AutotuneError(refused[-1])
    refuse_old(synced.origin)


def _tell(synced: Synced, *, as_json: bool) -> None:
    import time

    from autotuner.serving.snapshot_age import origin_text

    taken = synced.taken
    answer(
        {
            "changed": synced.changed,
            "symbols": synced.symbols,
            "snapshot": vars(synced.origin),
            "artifacts": vars(taken),
        },
        f"{synced.symbols:,} symbols, {'new' if synced.changed else 'as before'}; the snapshot is "
        f"{origin_text(synced.origin, time.time())}",
        f"compiled code of {taken.folders} configurations is here; {taken.files} files and "
        f"{taken.bytes / 2**20:,.1f} MB of it are new",
        as_json=as_json,
    )


def _go_on(fetch: Fetch, textfile: Path | None, every: float) -> None:
    """Fetch again and again until SIGTERM or SIGINT; what fails is said and tried again."""
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: set_apart(ended))
    while not ended.is_set():
        try:
            _fetch(fetch, textfile, as_json=False)
        except UsageError:
            raise
        except AutotuneError as error:
            note(f"Error: {error}")
        ended.wait(every)
