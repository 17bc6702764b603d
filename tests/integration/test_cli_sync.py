from __future__ import annotations

import re
import signal
import stat
import threading
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from autotuner import lookup
from autotuner.cli import cli
from autotuner.daemon.config import ShareConfig
from autotuner.daemon.loop import Daemon
from autotuner.daemon.sharing import Sharer
from autotuner.doctor.store_checks import check_snapshot
from autotuner.paths import snapshot_path
from autotuner.store import Store
from autotuner.web.metrics import metrics
from storage.snapshot import read_snapshot
from tests.support.command import Cli
from tests.support.invoking import document_of, refused
from tests.support.postgres import or_skipped
from tests.support.promoted_store import BF16, FAST, promotion
from tests.support.releases import Desk
from tests.support.snapshots import COMPILED, entry


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.setenv("AUTOTUNE_CACHE", str(tmp_path / "cache"))
    for name in (
        "TOTO_DISABLE_COMPILE",
        "TOTO_COMPILE_MODE",
        "AUTOTUNE_DB",
        "AUTOTUNE_SYNC_KEY",
        "AUTOTUNE_CONFIG",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("autotuner.paths.data_folder", lambda: tmp_path / "data")
    return Desk(tmp_path)


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(cli, list(arguments), prog_name="autotune")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def said(*arguments: str) -> str:
    result = run(*arguments)
    assert result.exit_code == 0, result.stderr
    return result.stdout


def test_the_commands_from_a_new_key_to_a_lookup(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    made = document_of(run("share", "--new-key", "share.key", "--json"))
    assert stat.S_IMODE(Path("share.key").stat().st_mode) == 0o600
    assert "is there already" in refused(run("share", "--new-key", "share.key"), 2)
    Path("share.key.pub").unlink()
    assert "is there already" in refused(run("share", "--new-key", "share.key"), 2)
    assert not Path("share.key.pub").exists()
    desk.publish()
    shared = document_of(run("share", "--to", "place", "--key", "share.key", "--db", desk.tuned, "--json"))
    assert (shared["symbols"], shared["key"]) == (1, made["key"])

    assert "no key is configured" in refused(run("sync", "--from", "place", "--db", desk.host), 2)
    monkeypatch.setenv("AUTOTUNE_SYNC_KEY", made["public"])
    synced = document_of(run("sync", "--from", "place", "--db", desk.host, "--json"))
    assert (synced["changed"], synced["symbols"]) == (True, 1)
    assert synced["snapshot"]["sequence"] == shared["sequence"]
    assert "1 symbols, as before; the snapshot is" in said("sync", "--from", "place", "--db", desk.host)
    assert lookup("AMD", db=desk.host).source == "promotion"


def test_the_file_says_what_the_command_line_does_not(desk: Desk) -> None:
    desk.publish()
    key = desk.key.public
    Path("autotune.toml").write_text(
        f'[share]\nto = "place"\nkey = "share.key"\n[sync]\nfrom = "place"\nkey = "{key}"\nmax_age_hours = 2\n'
    )
    said("share", "--db", desk.tuned)
    said("sync", "--db", desk.host)
    origin = read_snapshot(snapshot_path(desk.host)).origin
    assert origin is not None
    assert (origin.max_age_s, origin.key) == (7200, key.name)
    assert "good" in said("config", "check")


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("sync",), "name where from"),
        (("share",), "name where to"),
        (("share", "--to", "place"), "nothing is shared unsigned"),
        (("share", "--to", "place", "--key", "none"), "no such file"),
        (("sync", "--check", "--max-age", "soon"), "is no duration"),
        (("sync", "--from", "https://"), "names no place"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(desk: Desk, arguments: tuple[str, ...], why: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert why in result.stderr.splitlines()[-1]
    assert list(desk.home.iterdir()) == []


def test_nothing_that_was_published_is_nothing_to_share(desk: Desk) -> None:
    _ = desk.key
    line = refused(run("share", "--to", "place", "--key", "share.key", "--db", desk.tuned), 1)
    assert "nothing is published yet" in line


def test_with_its_place_away_a_host_goes_on_and_says_how_old_its_snapshot_is(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTOTUNE_SYNC_KEY", str(desk.key.public))
    away = ("sync", "--from", "place", "--db", desk.host, "--textfile", "autotune.prom")
    assert "there is no snapshot here yet: look-ups answer eager fp32" in refused(run(*away), 1)
    desk.publish()
    desk.share(ago=3 * 3600)
    said(*away)
    assert "autotune_sync_up 1" in Path("autotune.prom").read_text()
    before = snapshot_path(desk.host).read_bytes()
    desk.place.rename(desk.home / "unplugged")
    line = refused(run(*away), 1)

    assert re.search(
        r"place/release cannot be read: it is not there; look-ups go on with .* 3 h old \(20", line
    )
    assert snapshot_path(desk.host).read_bytes() == before
    assert lookup("AMD", db=desk.host).source == "promotion"
    told = Path("autotune.prom").read_text()
    assert "autotune_sync_up 0" in told
    (as_of,) = re.findall(r"^autotune_snapshot_timestamp_seconds (\S+)$", told, re.MULTILINE)
    assert time.time() - float(as_of) == pytest.approx(3 * 3600, abs=60)
    assert stat.S_IMODE(Path("autotune.prom").stat().st_mode) == 0o644


def test_a_forged_release_is_refused_in_one_line(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOTUNE_SYNC_KEY", str(desk.key.public))
    desk.publish()
    desk.share()
    said("sync", "--from", "place", "--db", desk.host)
    desk.pointer.write_bytes(desk.pointer.read_bytes() + b" ")
    line = refused(run("sync", "--from", "place", "--db", desk.host), 1)
    assert "forged or damaged; nothing of it is used; look-ups go on with" in line


def test_a_snapshot_that_became_too_old_is_an_alert_everywhere(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTOTUNE_SYNC_KEY", str(desk.key.public))
    assert "no snapshot that can be read" in refused(run("sync", "--check", "--db", desk.host), 1)
    desk.publish()
    assert "was published here" in refused(run("sync", "--check", "--db", desk.tuned), 1)
    assert b"autotune_snapshot_old" not in metrics(desk.tuned, None)
    desk.share(ago=3 * 3600)
    said("sync", "--from", "place", "--db", desk.host)

    assert "3 h old" in said("sync", "--check", "--db", desk.host)
    assert document_of(run("sync", "--check", "--db", desk.host, "--json"))["age_s"] > 3 * 3600
    assert "older than the 60 min it may be" in refused(
        run("sync", "--check", "--max-age", "1h", "--db", desk.host), 1
    )
    sound = check_snapshot(desk.host)
    assert sound.ok
    assert "1 symbols, 3 h old" in sound.found
    assert b"autotune_snapshot_old 0.0" in metrics(desk.host, None)

    result = run("sync", "--from", "place", "--db", desk.host, "--max-age", "2h")  # what it fetched is as old
    assert result.exit_code == 1
    assert "older than the 2 h it may be" in result.stderr
    assert not check_snapshot(desk.host).ok
    assert b"autotune_snapshot_old 1.0" in metrics(desk.host, None)
    assert "older than" in lookup("AMD", db=desk.host).reasons[0]


def test_show_says_on_a_host_without_the_store_what_a_lookup_answers(desk: Desk) -> None:
    desk.publish()
    desk.share(ago=7200)
    assert run("show", "AMD", "--db", desk.host).exit_code == 1
    desk.sync()
    text = said("show", "AMD", "--db", desk.host)
    assert "AMD runs eager bf16" in text
    assert "2 h old" in text
    shown = document_of(run("show", "AMD", "--db", desk.host, "--json"))
    assert shown["lookup"]["source"] == "promotion"
    assert "no store yet" in shown["store"]


def test_a_store_is_a_source_too_and_is_not_changed(desk: Desk) -> None:
    Path(desk.tuned).parent.mkdir()
    with Store(desk.tuned) as store:
        store.promote(promotion())
    before = Path(desk.tuned).read_bytes()
    assert "1 symbols, new" in said("sync", "--from", desk.tuned, "--db", desk.host)

    assert Path(desk.tuned).read_bytes() == before
    assert lookup("AMD", db=desk.host).settings == FAST
    assert lookup("AMD", db=desk.host).reasons[0].startswith("snapshot: 0 s old")
    assert "1 symbols, as before" in said("sync", "--from", f"sqlite:///{desk.tuned}", "--db", desk.host)
    assert "is the store itself" in refused(run("sync", "--from", desk.tuned, "--db", desk.tuned), 2)


def test_code_beside_a_store_is_taken_with_a_key_alone(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    Path(desk.tuned).parent.mkdir()
    with Store(desk.tuned) as store:
        store.promote(promotion())
    desk.share()
    both = ("sync", "--from", desk.tuned, "--artifacts", "place", "--db", desk.host)
    assert "no key is configured" in refused(run(*both), 2)
    monkeypatch.setenv("AUTOTUNE_SYNC_KEY", str(desk.key.public))
    assert "compiled code of 0 configurations" in said(*both)


def test_with_its_server_killed_a_host_goes_on_and_says_how_old_its_snapshot_is(desk: Desk) -> None:
    with or_skipped() as server:
        place = server.url()
        with Store(place) as store:
            store.promote(promotion(chosen=BF16))
        said("sync", "--from", place, "--db", desk.host)
        assert lookup("AMD", db=desk.host).settings == BF16
        server.kill()
        line = refused(run("sync", "--from", place, "--db", desk.host), 1)
        assert re.search(r"look-ups go on with the snapshot here, \d+ s old \(20", line)
        assert lookup("AMD", db=desk.host).settings == BF16
        assert " s old" in said("sync", "--check", "--db", desk.host)


def test_a_sync_that_goes_on_tells_what_fails_tries_again_and_ends_when_told(
    desk: Desk, tmp_path: Path
) -> None:
    key = str(desk.key.public)
    command = Cli(tmp_path)
    process = command.start(
        "sync", "--from", "place", "--every", "0.1", "--db", desk.host, extra={"AUTOTUNE_SYNC_KEY": key}
    )
    try:
        assert process.stderr is not None
        assert "it is not there" in process.stderr.readline()
        desk.publish()
        desk.share()
        until = time.monotonic() + 60
        while not snapshot_path(desk.host).exists():
            assert time.monotonic() < until
            time.sleep(0.02)
        desk.publish(entry(settings=COMPILED, number=2))
        desk.share()
        while lookup("AMD", db=desk.host).settings != COMPILED:
            assert time.monotonic() < until
            time.sleep(0.02)
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    assert process.returncode == 0


def test_the_daemon_shares_at_once_and_again_so_that_hosts_know_that_nothing_is_newer(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.publish()
    _ = desk.key
    path = desk.home / "daemon.toml"
    path.write_text(
        '[daemon]\nschedule = "0 0 1 1 *"\nhttp = ""\n[share]\nto = "place"\nkey = "share.key"\nevery_minutes = 0.1\n'
    )
    events: list[tuple[str, dict[str, object]]] = []
    daemon = Daemon(
        location=desk.tuned, config_file=path, log=lambda event, **about: events.append((event, about))
    )
    thread = threading.Thread(target=daemon.run)
    thread.start()
    try:
        until = time.monotonic() + 60
        while not desk.pointer.exists():
            assert time.monotonic() < until, events
            time.sleep(0.02)
        first = desk.sync().origin.sequence
        while desk.sync().origin.sequence == first:
            assert time.monotonic() < until, events
            time.sleep(0.1)
    finally:
        daemon.stop.set()
        daemon.wake.set()
        thread.join(timeout=30)
    assert not thread.is_alive()
    assert [event for event, _ in events].count("shared") == 1  # a release without news is no event


def test_a_daemon_that_cannot_share_logs_why(desk: Desk) -> None:
    events: list[tuple[str, dict[str, object]]] = []
    sharer = Sharer(
        location=desk.tuned,
        config=lambda: ShareConfig(to="place", key=Path("gone.key")),
        log=lambda event, **about: events.append((event, about)),
    )
    sharer.once()
    ((event, about),) = events
    assert event == "share_failed"
    assert "no such file" in str(about["reason"])
