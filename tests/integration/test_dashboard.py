"""The dashboard over HTTP: what it shows, what it follows, and who may change what."""

from __future__ import annotations

import http.client
import json
import re
import signal
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from autotuner.daemon.loop import Daemon
from autotuner.environment import current_environment
from autotuner.record_mapping import telemetry_record
from autotuner.report.overview import WINDOWS, overview
from autotuner.store import Store
from autotuner.web.site import Site
from tests.integration.test_report import Page
from tests.support import seen_store
from tests.support.command import Cli
from tests.support.promoted_store import BF16, FAST, NOW, STEADY, poison, promotion
from tests.support.serving import served

pytestmark = pytest.mark.usefixtures("no_variables")

TOKEN = "a token that is long enough"
PATHS = ("/", "/symbols/AMD", "/daemon", "/login")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    path = tmp_path / "autotune.db"
    seen_store.tuned(path, "AMD")
    with Store(str(path)) as opened:
        opened.pin("BTC/USDT", BF16, seen_store.HOSTILE)
    return path


@dataclass(kw_only=True)
class Client:
    """Asks one server as a browser would, with its cookie."""

    port: int
    cookies: dict[str, str] = field(default_factory=dict)

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(
        self, path: str, *, form: Mapping[str, str] | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, dict[str, str], str]:
        sent = {"Cookie": "; ".join(f"{name}={value}" for name, value in self.cookies.items())}
        if form is not None:
            sent |= {"Origin": self.origin, "Content-Type": "application/x-www-form-urlencoded"}
        sent = {name: value for name, value in {**sent, **(headers or {})}.items() if value}
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)) as connection:
            connection.request(
                "GET" if form is None else "POST", path, None if form is None else urlencode(form), sent
            )
            answer = connection.getresponse()
            found = {name.lower(): value for name, value in answer.getheaders()}
            return answer.status, found, answer.read().decode()

    def get(self, path: str, **headers: str) -> tuple[int, str]:
        status, _, body = self.ask(path, headers=headers)
        return status, body

    def log_in(self, token: str = TOKEN) -> int:
        status, headers, _ = self.ask("/login", form={"token": token})
        if "set-cookie" in headers:
            name, value = headers["set-cookie"].split(";")[0].split("=", 1)
            assert "HttpOnly" in headers["set-cookie"]
            assert "samesite=strict" in headers["set-cookie"].lower()
            self.cookies[name] = value
        return status

    def csrf(self, symbol: str = "AMD") -> str:
        found = re.search(r'name="csrf" value="([^"]+)"', self.get(f"/symbols/{symbol}")[1])
        assert found
        return found[1]

    def act(self, action: str, **form: str) -> tuple[int, str]:
        status, _, body = self.ask(f"/actions/{action}", form={"symbol": "AMD", **form})
        return status, body


@pytest.fixture
def client(store: Path) -> Iterator[Client]:
    """Of a server that only shows."""
    with served(Site(location=str(store))) as port:
        yield Client(port=port)


@pytest.fixture
def acting(store: Path) -> Iterator[Client]:
    """Of a server that allows actions to who knows the token."""
    with served(Site(location=str(store), token=TOKEN)) as port:
        yield Client(port=port)


def active(store: Path) -> Any:
    with Store(str(store)) as opened:
        found = opened.active("AMD")
    return None if found is None else found.settings


class TestPages:
    @pytest.mark.parametrize("path", PATHS)
    def test_hostile_texts_stay_texts_and_no_script_stands_in_a_page(self, acting: Client, path: str) -> None:
        status, headers, body = acting.ask(path)
        page = Page(body)
        assert status == 200
        scripts = [attributes for tag, attributes in page.tags if tag == "script"]
        assert all(
            attributes == {"type": "application/json"} or str(attributes["src"]).startswith("/assets/")
            for attributes in scripts
        )
        assert not {"img", "iframe", "object"} & {tag for tag, _ in page.tags}
        assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
        policy = headers["content-security-policy"]
        assert "script-src 'self';" in policy
        assert "frame-ancestors 'none'" in policy
        assert headers["x-content-type-options"] == "nosniff"

    def test_the_page_of_a_symbol_has_every_figure_of_its_promotion(self, client: Client) -> None:
        said = " ".join(" ".join(Page(client.get("/symbols/AMD")[1]).texts).split())
        for expected in (
            "2.81\N{MULTIPLICATION SIGN}",
            "2.74 to 2.88",
            "max-autotune bf16 freezing=True",
            "12.5 ms",
            "0.400% of 1.000%",
            "compile_error",
            "drift of 3.000% is above the limit of 1.000%",
            "rolled back",
            seen_store.HOSTILE.split("<img")[0],
        ):
            assert expected in said

    def test_symbols_with_a_slash_have_a_page(self, client: Client) -> None:
        status, body = client.get("/symbols/BTC%2FUSDT")
        assert status == 200
        assert "pinned" in body
        assert 'href="/symbols/BTC%2FUSDT"' in client.get("/")[1]

    @pytest.mark.parametrize(
        ("path", "status", "said"),
        [
            ("/symbols/TSLA", 404, "was never promoted"),
            ("/symbols/..%2F..%2Fetc", 400, "symbol"),
            ("/download/TSLA", 404, "nothing to download"),
            ("/nowhere", 404, "known are"),
            ("/assets/..%2Fserver.py", 404, ""),
        ],
    )
    def test_what_is_not_there_is_said(self, client: Client, path: str, status: int, said: str) -> None:
        found = client.get(path)
        assert found[0] == status
        assert said in found[1]

    def test_a_promotion_that_cannot_be_read_hides_no_other(self, client: Client, store: Path) -> None:
        poison(store, "BAD", evidence='{"ratio": "fast"}')
        status, body = client.get("/")
        assert status == 200
        assert "unreadable" in body
        assert "2.81x" in body
        assert client.get("/symbols/BAD")[0] == 503

    def test_a_store_that_is_gone_is_one_line_and_comes_back(self, client: Client, store: Path) -> None:
        aside = store.rename(store.with_suffix(".away"))
        status, body = client.get("/")
        assert status == 503
        assert "no store yet" in body
        aside.rename(store)
        assert client.get("/")[0] == 200

    def test_the_download_is_what_explain_says_with_every_raw_block(
        self, client: Client, store: Path
    ) -> None:
        status, headers, body = client.ask("/download/AMD")
        found = json.loads(body)
        said = json.loads(Cli(store.parent).run("explain", "AMD", "--json").stdout)
        assert status == 200
        assert headers["content-disposition"] == 'attachment; filename="AMD.json"'
        assert found["explanation"] == said
        assert len(found["measurements"]) == len(seen_store.trials())

    def test_the_daemons_page_shows_its_log(self, store: Path) -> None:
        daemon = Daemon(location=str(store), config_file=None, log=lambda *_, **__: None)
        daemon.log("failed", symbol="AMD", reason=seen_store.HOSTILE)
        with served(Site(location=str(store), daemon=daemon)) as port:
            page = Page(Client(port=port).get("/daemon")[1])
        assert seen_store.HOSTILE in "".join(page.texts)
        assert "✓ healthy" in "".join(page.texts)

    def test_pages_are_read_with_head_too(self, client: Client) -> None:
        with closing(http.client.HTTPConnection("127.0.0.1", client.port, timeout=30)) as connection:
            connection.request("HEAD", "/")
            answer = connection.getresponse()
            assert (answer.status, answer.read()) == (200, b"")


class TestOverview:
    def test_states_say_what_is_the_matter(self, store: Path) -> None:
        with Store(str(store)) as opened:
            at = NOW.replace(minute=59)
            notes = (
                seen_store.quarantine("AMD", FAST, at, "no g++"),
                seen_store.window("AMD", FAST, at, eager=7),
                seen_store.window("AMD", STEADY, at),
            )
            for note in notes:
                opened.records.add_telemetry(telemetry_record(note))
            rows = overview(opened, environment=current_environment(), now=at)
            (row,) = [row for row in rows if row.symbol == "AMD"]
            later = overview(opened, environment=current_environment(), now=at.replace(year=2027))
        states = {state.word: state.why for state in row.states}
        assert states == {
            "quarantined": "failed in production: no g++",
            "rescued": "0 calls made smaller for want of memory, 7 run uncompiled",
        }
        assert len(row.live_ms) == WINDOWS - 2  # one of the newest is a quarantine, one of what ran before
        assert "stale" in {state.word for state in later[0].states}

    def test_a_symbol_measured_elsewhere_says_what_differs(self, store: Path) -> None:
        elsewhere = replace(current_environment(), torch="9.9")
        with Store(str(store)) as opened:
            row = overview(opened, environment=elsewhere, now=NOW)[0]
        assert "9.9 here" in next(state.why for state in row.states if state.word == "elsewhere")


class TestEvents:
    def test_a_promotion_arrives_as_the_row_that_it_changes(self, client: Client, store: Path) -> None:
        found = re.search(r'data-state="([0-9a-f]+)"', client.get("/")[1])
        assert found
        state = found[1]
        events: list[str] = []
        heard = threading.Event()

        def listen() -> None:
            with closing(http.client.HTTPConnection("127.0.0.1", client.port, timeout=30)) as connection:
                connection.request("GET", f"/events?since={state}")
                answer = connection.getresponse()
                while not heard.is_set():
                    line = answer.readline().decode()
                    events.append(line)
                    if line.startswith("data") and events[-2].startswith("event: rows"):
                        heard.set()

        with Store(str(store)) as opened:  # between the page and its first question
            opened.promote(promotion("AMD", STEADY, minutes=90))
        thread = threading.Thread(target=listen, daemon=True)
        thread.start()
        assert heard.wait(20)
        data = json.loads(events[-1].removeprefix("data: "))
        assert list(data) == ["AMD"]
        assert "default fp32" in data["AMD"]
        thread.join(timeout=20)

    def test_a_page_too_old_to_be_remembered_loads_itself_again(self, client: Client) -> None:
        with closing(http.client.HTTPConnection("127.0.0.1", client.port, timeout=30)) as connection:
            connection.request("GET", "/events?since=of-another-server")
            answer = connection.getresponse()
            said = [answer.readline().decode() for _ in range(4)]
        assert said[2] == "event: reload\n"


class TestActions:
    def test_a_server_that_only_shows_has_no_actions(self, client: Client, store: Path) -> None:
        assert client.ask("/actions/rollback", form={"symbol": "AMD"})[0] == 404
        assert client.ask("/login", form={"token": TOKEN})[0] == 404
        assert "<form" not in client.get("/symbols/AMD")[1]
        assert active(store) == FAST

    def test_who_knows_the_token_rolls_back_pins_and_unpins(self, acting: Client, store: Path) -> None:
        assert "<form" not in acting.get("/symbols/AMD")[1]
        assert acting.log_in() == 303
        csrf = acting.csrf()

        assert (
            acting.act("pin", csrf=csrf, settings=STEADY.to_json(), reason="earnings <b>week</b>")[0] == 200
        )
        with Store(str(store)) as opened:
            pins = {pin.symbol: pin for pin in opened.records.pins()}
        assert (pins["AMD"].settings_key, pins["AMD"].reason) == (STEADY.key, "earnings <b>week</b>")
        assert acting.act("unpin", csrf=csrf)[0] == 200
        assert acting.act("rollback", csrf=csrf, reason="slow")[0] == 200
        assert active(store) is None

    @pytest.mark.parametrize(
        "headers", [{"Origin": "http://evil.example"}, {"Origin": ""}, {"Origin": "null"}]
    )
    def test_a_form_of_another_page_is_refused(
        self, acting: Client, store: Path, headers: dict[str, str]
    ) -> None:
        acting.log_in()
        form = {"symbol": "AMD", "csrf": acting.csrf()}
        assert acting.ask("/actions/rollback", form=form, headers=headers)[0] == 403
        assert active(store) == FAST

    def test_without_a_session_or_its_word_nothing_is_done(self, acting: Client, store: Path) -> None:
        assert acting.act("rollback", csrf="")[0] == 403
        acting.log_in()
        assert acting.act("rollback")[0] == 403
        assert acting.act("rollback", csrf="x" * 32)[0] == 403
        other = Client(port=acting.port)
        other.log_in()
        assert acting.act("rollback", csrf=other.csrf())[0] == 403
        assert active(store) == FAST

    def test_a_wrong_token_opens_nothing(self, acting: Client) -> None:
        assert acting.log_in("guess") == 403
        assert acting.cookies == {}

    def test_a_foreign_or_a_second_host_is_refused(self, acting: Client) -> None:
        assert acting.get("/", Host="evil.example")[0] == 421
        with socket.create_connection(("127.0.0.1", acting.port), timeout=20) as raw:
            raw.sendall(
                b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n"
            )
            assert b" 400 " in raw.recv(200)

    @pytest.mark.parametrize(
        ("action", "form"),
        [
            ("pin", {"settings": '{"compile_mode": "warp"}'}),
            ("pin", {"settings": "[" * 3000}),
            ("unpin", {}),
            ("burn", {}),
            ("rollback", {"symbol": "TSLA"}),
            ("rollback", {"symbol": "../x"}),
        ],
    )
    def test_what_cannot_be_done_is_said_and_changes_nothing(
        self, acting: Client, store: Path, action: str, form: dict[str, str]
    ) -> None:
        acting.log_in()
        status, body = acting.act(action, csrf=acting.csrf(), **form)
        assert status == 409
        assert "Not done" in body
        assert active(store) == FAST

    def test_a_form_too_large_to_be_one_of_ours_is_refused(self, acting: Client) -> None:
        acting.log_in()
        assert acting.act("pin", csrf=acting.csrf(), settings="x" * 100_000)[0] == 403

    def test_tuning_again_is_a_run_of_its_own(self, acting: Client, store: Path) -> None:
        acting.log_in()
        csrf = acting.csrf()
        # The prices of this store's symbol are not there: the run says so and ends, and another one may begin.
        assert acting.act("retune", csrf=csrf)[0] == 200


class TestCommand:
    def test_it_says_where_it_is_and_ctrl_c_ends_it(self, store: Path) -> None:
        with Cli(store.parent).start("dashboard", "--port", "0", "--allow-actions") as command:
            assert command.stderr is not None
            found = re.search(r"http://127\.0\.0\.1:(\d+)/", command.stderr.readline())
            token = command.stderr.readline().split()[-1]
            assert found
            client = Client(port=int(found[1]))
            assert client.get("/")[0] == 200
            assert client.log_in(token) == 303
            command.send_signal(signal.SIGINT)
            assert command.wait(timeout=20) == 0

    @pytest.mark.parametrize(
        ("arguments", "extra", "said", "code"),
        [
            (("--db", "none.db"), {}, "no store yet", 1),
            (("--allow-actions",), {"AUTOTUNE_DASHBOARD_TOKEN": "short"}, "at least 16", 2),
            (("--host", "256.0.0.1"), {}, "cannot be served", 2),
        ],
    )
    def test_what_cannot_be_served_is_one_line(
        self, store: Path, arguments: tuple[str, ...], extra: dict[str, str], said: str, code: int
    ) -> None:
        done = Cli(store.parent).run("dashboard", *arguments, extra=extra)
        assert done.returncode == code
        assert said in done.stderr
        assert len([line for line in done.stderr.splitlines() if line.startswith("Error")]) == 1
