"""``autotune studies`` shows what was searched, on this machine alone, and changes nothing."""

from __future__ import annotations

import http.client
import json
import re
import signal
import sqlite3
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import optuna
import pytest
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage

from autotuner.errors import AutotuneError
from autotuner.paths import studies_url
from autotuner.search.study_storage import open_storage
from autotuner.web.studies import studies_server
from storage.errors import StoreUnavailable
from tests.support.command import Cli
from tests.support.postgres import Server

pytestmark = pytest.mark.usefixtures("no_variables")

NAME = "AMD on <b>paper</b>"


def search_something(place: Path) -> None:
    """A study of one trial where a run keeps its own."""
    with opened(place) as storage:
        study = optuna.create_study(storage=storage, study_name=NAME)
        study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)


@contextmanager
def opened(place: Path) -> Iterator[RDBStorage]:
    storage = RDBStorage(studies_url(str(place)))
    try:
        yield storage
    finally:
        storage.remove_session()
        storage.engine.dispose()


def refused(place: str, port: int = 0) -> str:
    """The one line that is said instead of serving."""
    with pytest.raises(AutotuneError) as refusal, studies_server(place, port):
        pytest.fail("it is served")
    assert "\n" not in str(refusal.value)
    return str(refusal.value)


@pytest.fixture
def page(place: Path, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """The running command, and its port."""
    search_something(place)
    with Cli(tmp_path).start("studies", "--port", "0", "--db", str(place)) as command:
        assert command.stderr is not None
        try:
            found = re.search(r"http://127\.0\.0\.1:(\d+)/", command.stderr.readline())
            assert found
            yield command, int(found[1])
        finally:
            command.kill()


def ask(port: int, path: str, method: str = "GET", host: str = "127.0.0.1") -> tuple[int, bytes]:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=20)) as connection:
        connection.request(method, path, headers={"Host": host})
        answer = connection.getresponse()
        return answer.status, answer.read()


def test_a_study_is_shown_and_ctrl_c_ends_it(page: tuple[subprocess.Popen[str], int]) -> None:
    command, port = page
    status, body = ask(port, "/api/studies")
    assert status == 200
    assert [study["study_name"] for study in json.loads(body)["study_summaries"]] == [NAME]
    assert ask(port, "/dashboard/")[0] == 200

    command.send_signal(signal.SIGINT)
    assert command.wait(timeout=20) == 0


def test_nothing_can_be_changed_from_the_page(page: tuple[subprocess.Popen[str], int], place: Path) -> None:
    _, port = page
    study_id = json.loads(ask(port, "/api/studies")[1])["study_summaries"][0]["study_id"]

    for method in ("DELETE", "POST", "PUT"):
        assert ask(port, f"/api/studies/{study_id}", method)[0] == 405

    with opened(place) as storage:
        assert optuna.get_all_study_names(storage) == [NAME]


def test_a_page_elsewhere_whose_name_resolves_to_this_machine_is_refused(
    page: tuple[subprocess.Popen[str], int],
) -> None:
    assert ask(page[1], "/api/studies", host="evil.example")[0] == 421


def test_without_studies_it_says_what_makes_them_and_leaves_no_file(place: Path) -> None:
    assert "no studies yet; `autotune run" in refused(str(place))
    assert not list(place.parent.glob("*-studies.db"))


@pytest.mark.parametrize("content", [b"no database" * 100, b""])
def test_a_file_that_holds_no_studies_is_refused_and_left_as_it_is(content: bytes, place: Path) -> None:
    file = place.with_name(f"{place.stem}-studies.db")
    file.write_bytes(content)
    assert "the studies cannot be read" in refused(str(place))
    assert file.read_bytes() == content


def test_another_programs_database_is_refused(place: Path) -> None:
    with closing(sqlite3.connect(place.with_name(f"{place.stem}-studies.db"))) as other:
        other.execute("CREATE TABLE notes (text)")
        other.commit()
    assert "the studies cannot be read" in refused(str(place))


def test_a_server_that_is_not_there_is_one_line_without_its_password() -> None:
    secret = "postgresql+psycopg://tuner:secret@127.0.0.1:1/prod"
    with (
        pytest.raises(StoreUnavailable, match="cannot be reached") as refusal,
        studies_server(secret, 0),
    ):
        pytest.fail("it is served")
    assert "secret" not in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_the_studies_of_a_server_are_shown_and_cannot_be_written(postgres: Server) -> None:
    url = postgres.new_database()
    assert "no studies yet; `autotune run" in refused(url)
    storage = open_storage(studies_url(url))
    optuna.create_study(storage=storage, study_name=NAME)
    storage.remove_session()
    storage.engine.dispose()
    with studies_server(url, 0) as server:
        answering = threading.Thread(target=server.serve_forever, daemon=True)
        answering.start()
        status, body = ask(server.server_port, "/api/studies")
        server.shutdown()
        answering.join()
    assert status == 200
    assert [study["study_name"] for study in json.loads(body)["study_summaries"]] == [NAME]
    looking = open_storage(studies_url(url), read_only=True)
    with pytest.raises(StorageInternalError) as failure:
        looking.set_study_user_attr(1, "changed", True)
    assert "read-only transaction" in str(failure.value.__cause__)
    looking.remove_session()
    looking.engine.dispose()


def test_a_port_that_is_taken_is_one_line(page: tuple[subprocess.Popen[str], int], place: Path) -> None:
    assert f"port {page[1]} cannot be served" in refused(str(place), page[1])
