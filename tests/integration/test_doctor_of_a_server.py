"""What ``autotune doctor`` says of a store's server."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy.engine import make_url

from autotuner.doctor.checks import Check
from autotuner.doctor.server_checks import (
    ServerFacts,
    check_clock,
    check_connections,
    check_rights,
    check_version,
    server_checks,
    server_facts,
)
from storage.database import open_database
from tests.support.postgres import Server


@pytest.fixture
def url(postgres: Server) -> str:
    url = postgres.new_database()
    open_database(url).close()
    return url


@pytest.fixture
def facts(url: str) -> ServerFacts:
    with open_database(url) as database:
        return server_facts(database)


def test_a_server_that_answers_is_examined_and_a_file_is_not(url: str) -> None:
    found = {check.name: check for check in server_checks(url)}
    assert list(found) == ["server", "server clock", "server rights", "server connections"]
    assert "fsync off" in found["server"].found  # as tests start it
    assert found["server rights"].found == "autotune may read, write and make tables"
    assert found["server connections"].ok
    assert found["server clock"].found == "differs by 0.0 s from this machine's"
    assert server_checks("/nowhere/autotune.db") == ()
    assert server_checks("postgresql://nobody@127.0.0.1:1/none") == ()


def test_a_user_without_rights_is_told_what_to_grant(postgres: Server) -> None:
    name = str(make_url(postgres.new_database()).database)
    postgres.execute("DROP ROLE IF EXISTS guest")
    postgres.execute("CREATE ROLE guest LOGIN")
    postgres.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC", name)
    guest = postgres.url(name, "guest")

    def rights() -> Check:
        return server_checks(guest)[2]

    assert rights().fix == "GRANT CREATE ON SCHEMA public TO guest"
    postgres.execute(rights().fix, name)
    assert rights().fix == "CREATE SCHEMA autotune_studies AUTHORIZATION guest"
    postgres.execute(rights().fix, name)
    assert rights().ok
    open_database(postgres.url(name)).close()
    assert rights().fix == "GRANT ALL ON ALL TABLES IN SCHEMA public TO guest"
    postgres.execute(rights().fix, name)
    assert rights().ok
    open_database(guest).close()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"major": 12}, "too old"),
        ({"encoding": "SQL_ASCII"}, "not every text can be kept"),
        ({"syncs": True, "acknowledges": "off"}, "synchronous_commit off"),
        ({"standby": True}, "a standby"),
        ({"in_use": 95, "connections": 97}, "95 of 97 in use"),
    ],
)
def test_what_is_wrong_has_a_fix(facts: ServerFacts, changes: dict[str, object], said: str) -> None:
    wrong = replace(facts, **changes)  # type: ignore[arg-type]
    found = [check for check in _all(wrong) if check not in _all(facts)]
    assert len(found) == 1
    assert said in found[0].found
    assert found[0].fix


def test_clocks_that_differ_are_a_warning(facts: ServerFacts) -> None:
    assert check_clock(facts).ok
    assert "differs by 5." in check_clock(replace(facts, now=facts.asked + timedelta(seconds=5.04))).found
    assert not check_clock(replace(facts, now=facts.asked - timedelta(seconds=5))).ok


def _all(facts: ServerFacts) -> list[Check]:
    return [check_version(facts), check_rights(facts), check_connections(facts)]
