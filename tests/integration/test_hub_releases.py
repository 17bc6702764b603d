"""Releases in a repository of the Hugging Face hub: the real client against a server that keeps one in memory."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import fsspec
import pytest
from huggingface_hub import HfFileSystem

from autotuner.environment import current_environment
from autotuner.errors import AutotuneError
from autotuner.serving.artifacts import compile_cache
from autotuner.sharing.keys import BadSignature
from autotuner.sharing.places import place_at
from autotuner.sharing.share import share
from autotuner.sharing.sync import sync_release
from tests.support.releases import HOURS, Desk, built
from tests.support.snapshots import COMPILED, entry

HERE = current_environment().fingerprint
URL = "hf://datasets/desk/autotune/releases"
REPOSITORY = "datasets/desk/autotune"


class Hub(ThreadingHTTPServer):
    """One repository: its files by path, and how many files each commit brought."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answering)
        self.files: dict[str, bytes] = {}
        self.commits: list[int] = []


class Answering(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path).strip("/")
        if path.startswith(f"{REPOSITORY}/resolve/main/"):
            self.give(path.removeprefix(f"{REPOSITORY}/resolve/main/"))
        elif path.startswith(f"api/{REPOSITORY}/tree/main"):
            self.list(path.removeprefix(f"api/{REPOSITORY}/tree/main").strip("/"))
        elif path.startswith(f"api/{REPOSITORY}"):
            self.answer(200, {"id": "desk/autotune", "sha": "0" * 40, "siblings": []})
        else:
            self.answer(404, {}, "RepoNotFound")

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        sent = self.rfile.read(int(self.headers["Content-Length"]))
        if "/preupload/" in self.path:
            files = [
                {"path": each["path"], "uploadMode": "regular", "shouldIgnore": False}
                for each in json.loads(sent)["files"]
            ]
            self.answer(200, {"files": files})
            return
        lines = [json.loads(line) for line in sent.splitlines()]
        new = {each["value"]["path"]: each["value"]["content"] for each in lines if each["key"] == "file"}
        self.server.files |= {name: base64.b64decode(content) for name, content in new.items()}
        self.server.commits.append(len(new))
        self.answer(
            200,
            {"commitUrl": f"https://huggingface.co/{REPOSITORY}/commit/{'1' * 40}", "commitOid": "1" * 40},
        )

    def list(self, folder: str) -> None:
        found: dict[str, dict[str, object]] = {}
        for name, content in self.server.files.items():
            if name.startswith(f"{folder}/"):
                first, below, _ = name.removeprefix(f"{folder}/").partition("/")
                kind: dict[str, object] = (
                    {"type": "directory"} if below else {"type": "file", "size": len(content)}
                )
                found[first] = {"path": f"{folder}/{first}", "oid": "2" * 40, **kind}
        if found:
            self.answer(200, list(found.values()))
        else:
            self.answer(404, {}, "EntryNotFound")

    def give(self, name: str) -> None:
        content = self.server.files.get(name)
        if content is None:
            self.answer(404, {}, "EntryNotFound")
            return
        wanted = self.headers.get("Range")
        if wanted:
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            content = content[int(first) : int(last) + 1 if last else None]
        self.send(206 if wanted else 200, content, {"ETag": '"x"', "X-Repo-Commit": "0" * 40})

    def answer(self, code: int, document: object, fault: str = "") -> None:
        self.send(code, json.dumps(document).encode(), {"X-Error-Code": fault} if fault else {})

    def send(self, code: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(code)
        for name, value in (headers | {"Content-Length": str(len(content))}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with Hub() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        endpoint = {"endpoint": f"http://127.0.0.1:{server.server_port}"}
        monkeypatch.setitem(fsspec.config.conf, "hf", endpoint)
        monkeypatch.setenv("HF_TOKEN", "hf_none")
        HfFileSystem.clear_instance_cache()
        yield server
        HfFileSystem.clear_instance_cache()
        server.shutdown()
        thread.join()


def test_a_repository_is_a_place_of_releases_and_each_is_one_commit(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = Desk(tmp_path)
    monkeypatch.setenv("AUTOTUNE_CACHE", str(tmp_path / "tuned" / "cache"))
    desk.publish(entry(settings=COMPILED))
    built(HERE, COMPILED.key, tmp_path, {"packages/one.so": b"machine code"})
    with pytest.raises(AutotuneError, match="it is not there"):
        sync_release(desk.host, place_at(URL), desk.public, HOURS, now=datetime.now(UTC))
    place = place_at(URL)
    share(desk.tuned, place, desk.key, now=datetime.now(UTC))
    share(desk.tuned, place, desk.key, now=datetime.now(UTC))
    assert hub.commits == [4, 1]  # document, code, list and pointer; then the pointer alone

    monkeypatch.setenv("AUTOTUNE_CACHE", str(tmp_path / "host" / "cache"))
    synced = sync_release(desk.host, place_at(URL), desk.public, HOURS, now=datetime.now(UTC))
    assert (synced.changed, synced.taken.files, synced.taken.said) == (True, 1, ())
    assert (compile_cache(HERE, COMPILED.key) / "packages/one.so").read_bytes() == b"machine code"

    hub.files["releases/release"] += b" "
    with pytest.raises(BadSignature, match="forged or damaged"):
        sync_release(desk.host, place_at(URL), desk.public, HOURS, now=datetime.now(UTC))


def test_a_hub_without_the_repository_is_told_in_one_line(hub: Hub, tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.publish()
    with pytest.raises(AutotuneError) as caught:
        share(desk.tuned, place_at("hf://datasets/desk/none"), desk.key, now=datetime.now(UTC))
    assert "hf://datasets/desk/none" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert hub.commits == []
