"""What systemd hears of a real daemon process: ready, alive, stopping."""

from __future__ import annotations

import contextlib
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from autotuner.daemon.service_manager import notify, watchdog_seconds
from tests.support.command import Cli

CONFIG = """
[daemon]
schedule = "0 0 1 1 *"
http = "127.0.0.1:0"
"""


@contextlib.contextmanager
def listening(address: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(address)
        receiver.settimeout(60.0)
        yield receiver


def states(receiver: socket.socket) -> dict[str, str]:
    return dict(line.split("=", 1) for line in receiver.recv(4096).decode().splitlines())


def test_a_daemon_says_that_it_is_ready_alive_and_stopping(tmp_path: Path) -> None:
    autotune = Cli(tmp_path)
    (tmp_path / "autotune.toml").write_text(CONFIG)
    extra = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "1000000"}
    with listening(str(tmp_path / "notify")) as receiver:
        daemon = autotune.start("daemon", extra=extra)
        try:
            heard = [states(receiver)]
            assert heard[0]["READY"] == "1"
            assert "keeping all symbols" in heard[0]["STATUS"]
            while sum("WATCHDOG" in each for each in heard) < 3:
                heard.append(states(receiver))
            assert any(each.get("STATUS", "").startswith("next tick ") for each in heard)
            begun = time.monotonic()
            daemon.send_signal(signal.SIGTERM)
            while "STOPPING" not in heard[-1]:
                heard.append(states(receiver))
            assert daemon.wait(timeout=10) == 0
            assert time.monotonic() - begun < 10.0
        finally:
            daemon.kill()
            daemon.communicate()


def test_an_abstract_socket_is_heard_and_none_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"autotune-test-{time.monotonic_ns()}"
    with listening(f"\0{name}") as receiver:
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")
        notify(STATUS="two\nlines")
        assert states(receiver) == {"STATUS": "two lines"}
    notify(READY="1")  # nobody listens any more
    monkeypatch.delenv("NOTIFY_SOCKET")
    notify(READY="1")


@pytest.mark.parametrize(("given", "seconds"), [("2000000", 1.0), ("nonsense", None), (None, None)])
def test_the_watchdog_is_fed_twice_as_often_as_it_asks(
    given: str | None, seconds: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WATCHDOG_USEC", raising=False)
    if given is not None:
        monkeypatch.setenv("WATCHDOG_USEC", given)

    assert watchdog_seconds() == seconds
