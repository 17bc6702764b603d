from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from autotuner.daemon import intake
from autotuner.daemon.loop import Daemon
from autotuner.environment import current_environment
from autotuner.errors import AutotuneError, UsageError
from autotuner.figures import Figures
from autotuner.measurement.outcome import Interval
from autotuner.store import Promotion, Store
from autotuner.web.server import parse_address, serving
from autotuner.web.site import Site
from autotuner.workload import Workload
from tests.support.notes import WINDOW, insert, unreadable
from tests.support.serving import served
from toto_core.settings import RuntimeSettings
from toto_core.symbols import parse_symbol

SETTINGS = RuntimeSettings(compile_mode="default", num_threads=1)


@pytest.fixture
def daemon(tmp_path: Path) -> Daemon:
    location = str(tmp_path / "autotune.db")
    with Store(location) as store:
        store.promote(
            Promotion(
                symbol="AMD",
                profile="production",
                workload=Workload(),
                environment=current_environment(),
                settings=SETTINGS,
                verdict="first",
                reason="it takes less time",
                figures=Figures(ratio=Interval(estimate=2.5, low=2.4, high=2.6), p50_ms=1.25),
                promoted_at=datetime(2026, 5, 4, tzinfo=UTC),
            )
        )
    return Daemon(location=location, config_file=None, log=lambda *_, **__: None)


@pytest.fixture
def port(daemon: Daemon) -> Iterator[int]:
    with served(Site(location=daemon.location, daemon=daemon)) as number:
        yield number


def get(port: int, path: str, *, method: str = "GET", host: str | None = None) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, path, headers={"Host": host} if host else {})
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def test_a_single_tick_that_fails_ends_with_the_reason(daemon: Daemon) -> None:
    Path(daemon.location).write_bytes(b"no store" * 100)

    with pytest.raises(AutotuneError, match=r"the tick failed: .* is damaged or no store"):
        daemon.run(once=True)
    assert not daemon.healthy


def test_metrics_say_what_is_promoted(port: int) -> None:
    status, text = get(port, "/metrics")

    assert status == 200
    assert (
        f'autotune_promoted_ratio{{profile="production",settings="{SETTINGS.key}",symbol="AMD"}} 2.5' in text
    )
    assert "autotune_healthy 1.0" in text
    assert "autotune_store_up 1.0" in text


def test_metrics_go_through_whatever_is_stored_as_telemetry(
    port: int, daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(intake, "_said", set())
    monkeypatch.setattr(daemon, "log", lambda event, **fields: said.append(fields["reason"]))
    bad = unreadable({"symbol": "AMD"})
    for payload in (WINDOW, *bad.values()):
        insert(daemon.location, payload, symbol="AMD", settings_key=SETTINGS.key, at=datetime.now(UTC))
    answers = [get(port, "/metrics") for _ in range(2)]

    assert [status for status, _ in answers] == [200, 200]
    assert all('autotune_live_calls{symbol="AMD"} 3.0' in text for _, text in answers)
    assert all("autotune_store_up 1.0" in text for _, text in answers)
    assert len(said) == len(bad)


def test_health_and_readiness_follow_the_daemon_and_its_store(port: int, daemon: Daemon) -> None:
    assert get(port, "/healthz")[0] == get(port, "/readyz")[0] == 200
    daemon.healthy = False
    assert get(port, "/healthz")[0] == get(port, "/readyz")[0] == 503


def test_a_store_that_is_no_store_is_not_ready_and_metrics_say_so(port: int, daemon: Daemon) -> None:
    Path(daemon.location).write_bytes(b"not a database, not at all" * 100)

    assert get(port, "/readyz")[0] == 503
    assert "autotune_store_up 0.0" in get(port, "/metrics")[1]


def test_settings_are_served_for_runtimes_in_any_language(port: int) -> None:
    status, text = get(port, "/api/v1/settings/amd")
    found: dict[str, Any] = json.loads(text)

    assert (status, found["source"], found["settings"]) == (200, "promotion", SETTINGS.to_dict())
    assert json.loads(get(port, "/api/v1/settings/TSLA")[1])["source"] == "default"
    assert get(port, "/api/v1/settings/..%2Fx")[0] == 400


@pytest.mark.parametrize(
    "symbol", ["BTC%2FUSDT", "%5EGSPC", "M%26M.NS", "ES=F", "eurusd=x", "^gspc", "BTC/USDT"]
)
def test_symbols_are_read_percent_encoded_or_not(port: int, symbol: str) -> None:
    status, text = get(port, f"/api/v1/settings/{symbol}")
    assert (status, json.loads(text)["symbol"]) == (200, parse_symbol(unquote(symbol)))


def test_head_is_get_without_its_body(port: int) -> None:
    for path in ("/metrics", "/healthz", "/nowhere"):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.request("HEAD", path)
        response = connection.getresponse()
        assert response.status == get(port, path)[0]
        assert int(response.headers["Content-Length"]) > 0
        assert response.read() == b""
        connection.close()


def test_an_ipv6_address_is_served(daemon: Daemon, tmp_path: Path) -> None:
    try:
        with socket.socket(socket.AF_INET6) as free:
            free.bind(("::1", 0))
            port = free.getsockname()[1]
    except OSError:
        pytest.skip("this machine has no IPv6")
    config = tmp_path / "autotune.toml"
    config.write_text(f'[daemon]\nhttp = "[::1]:{port}"\n')
    with serving(replace(daemon, config_file=config)):
        connection = http.client.HTTPConnection("::1", port, timeout=10)
        connection.request("GET", "/healthz")
        assert connection.getresponse().status == 200
        connection.close()


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_nothing_but_get_and_head_is_answered(port: int, method: str) -> None:
    assert get(port, "/metrics", method=method)[0] == 405


def test_unknown_paths_and_host_names_are_refused(port: int) -> None:
    assert get(port, "/nowhere")[0] == 404
    assert get(port, "/metrics", host="evil.example")[0] == 421
    assert get(port, "/metrics", host=f"localhost:{port}")[0] == 200


@pytest.mark.parametrize(
    "text", ["9478", "127.0.0.1", "127.0.0.1:x", "127.0.0.1:70000", ":9478", "[]:1", "[::1]"]
)
def test_an_address_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"HOST:PORT|in brackets"):
        parse_address(text)


def test_an_ipv6_address_stands_in_brackets() -> None:
    assert parse_address("[::1]:9478") == ("::1", 9478)
    with pytest.raises(UsageError, match="in brackets"):
        parse_address("::1:9478")
