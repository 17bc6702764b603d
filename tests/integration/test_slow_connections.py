"""Whoever opens many connections and says little is hung up on, and keeps nobody else out."""

from __future__ import annotations

import contextlib
import http.client
import re
import resource
import select
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from autotuner.report.html import plotly_source
from autotuner.store import Store
from autotuner.web import connections
from autotuner.web.site import Site
from tests.support.command import Cli
from tests.support.serving import served

FILES = 290
"""So few that asyncio would run out of them, at 16 connections."""


@pytest.fixture
def site(tmp_path: Path) -> Site:
    location = str(tmp_path / "autotune.db")
    with Store(location):
        pass
    return Site(location=location)


@contextlib.contextmanager
def slow(port: int, count: int, first: bytes) -> Iterator[list[socket.socket]]:
    with contextlib.ExitStack() as stack:
        opened = [
            stack.enter_context(socket.create_connection(("127.0.0.1", port), 10)) for _ in range(count)
        ]
        for each in opened:
            with contextlib.suppress(OSError):
                each.sendall(first)
        yield opened


def health(port: int) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    with contextlib.closing(connection):
        connection.request("GET", "/healthz")
        return connection.getresponse().status


def answers(port: int, asked: bytes) -> bytes:
    """How the server's answer to some bytes begins, empty where it hangs up."""
    with socket.create_connection(("127.0.0.1", port), 10) as asking:
        with contextlib.suppress(OSError):
            asking.sendall(asked)
        with contextlib.suppress(OSError):
            return asking.recv(1 << 16)
        return b""


def test_a_hundred_slow_connections_leave_room_where_files_are_few(tmp_path: Path) -> None:
    with Store(str(tmp_path / "autotune.db")):
        pass
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (FILES, before[1]))  # what a child inherits
    try:
        command = Cli(tmp_path).start("dashboard", "--port", "0")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    with command:
        try:
            assert command.stderr is not None
            found = re.search(r":(\d+)/", command.stderr.readline())
            assert found is not None
            with slow(int(found[1]), 100, b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nX: ") as opened:
                assert health(int(found[1])) == 200
                open_files = len([*Path(f"/proc/{command.pid}/fd").iterdir()])
                assert open_files < FILES - 100
                assert len(select.select(opened, [], [], 5)[0]) >= 80  # hung up on
        finally:
            command.terminate()
            said = command.stderr.read() if command.stderr else ""
    assert said == ""


def test_slow_ones_are_hung_up_on_after_a_while(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "REQUEST_SECONDS", 0.3)
    upload = b"POST /login HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 900\r\n\r\ntoken="
    again = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\nGET /he"
    with served(Site(location=site.location, token="a" * 20)) as port:
        for first in (b"", b"GET /", b"GET / HTTP/1.1\r\nHost: ", upload, again):
            with slow(port, 1, first) as (one,):
                one.settimeout(5)
                with contextlib.suppress(ConnectionResetError):
                    while one.recv(1 << 16):
                        pass
        with slow(port, 1, b"GET /events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n") as (page,):
            time.sleep(0.6)
            assert b"retry: " in page.recv(1 << 16)
            assert select.select([page], [], [], 0.2)[0] == []  # nothing said, and not hung up on


def test_who_reads_nothing_of_an_answer_is_hung_up_on(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "STALL_SECONDS", 0.2)
    with served(site) as port, socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.connect(("127.0.0.1", port))
        deaf.sendall(b"GET /assets/plotly.js HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" * 5)
        time.sleep(1.5)
        read = 0
        with contextlib.suppress(ConnectionResetError):
            while block := deaf.recv(1 << 16):
                read += len(block)
        assert read < len(plotly_source())


def test_pages_that_follow_are_bounded(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autotuner.web.app.MOST_STREAMS", 3)
    asked = b"GET /events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    with served(site) as port:
        with slow(port, 3, asked) as opened:
            for each in opened:
                assert b"200 OK" in each.recv(100)
            assert b" 503 " in answers(port, asked).splitlines()[0]
            assert health(port) == 200
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:  # until the server has seen that they are gone
            with slow(port, 1, asked) as (one,):
                if b"200 OK" in one.recv(100):
                    return
            time.sleep(0.1)
        raise AssertionError("the streams were never given back")


ODD = {
    "two hosts": b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: 127.0.0.1\r\n\r\n",
    "another host behind": b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil.example\r\n\r\n",
    "no host": b"GET /healthz HTTP/1.1\r\n\r\n",
    "another host": b"GET /healthz HTTP/1.1\r\nHost: evil.example\r\n\r\n",
    "two hosts in one": b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1, evil.example\r\n\r\n",
    "an empty host": b"GET /healthz HTTP/1.1\r\nHost:\r\n\r\n",
    "many headers": b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n" + b"X: y\r\n" * 20_000 + b"\r\n",
    "a long header": b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"y" * 200_000 + b"\r\n\r\n",
    "a long address": b"GET /symbols/" + b"A" * 200_000 + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    "a long symbol": b"GET /symbols/" + b"A" * 20_000 + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    "a zero byte": b"GET /symbols/A%00B HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    "a raw zero byte": b"GET /symbols/A\x00B HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    "half an escape": b"GET /symbols/%E0%80 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    "no escape": b"GET /api/v1/settings/%zz%2 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    "a surrogate": b"GET /download/%ED%A0%80 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    "a folder above": b"GET /assets/..%2f..%2fpages.py HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    "another site": b"GET http://evil.example/x HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    "a tunnel": b"CONNECT 127.0.0.1:22 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    "two lengths": b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "a length below zero": b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: -1\r\n\r\n",
    "no HTTP": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 20 + b"\r\n\r\n",
}


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD.keys())
def test_what_is_no_proper_request_is_refused_without_a_word_in_the_log(
    site: Site, odd: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    with served(site) as port:
        answer = answers(port, odd)
        assert re.match(rb"HTTP/1.1 4\d\d ", answer) or (answer == b"" and len(odd) > 100_000)  # hung up on
        assert b"Traceback" not in answer
        assert health(port) == 200
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("query", [b"since=%00%ff%zz", b"since=" + b"x" * 50_000, b"\x7f=&&&=;a=a&a=a", b"%"])
def test_odd_parameters_are_taken_for_none(
    site: Site, query: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    with served(site) as port, slow(port, 1, b"") as (one,):
        one.sendall(b"GET /events?" + query + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert re.match(rb"HTTP/1.1 (200|4\d\d) ", one.recv(100))
        assert health(port) == 200
    assert capfd.readouterr() == ("", "")
