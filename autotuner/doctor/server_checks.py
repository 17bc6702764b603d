"""Examines the server of a store for the doctor: its version, durability, clock, rights and connections."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import text

from autotuner.doctor.checks import Check, warning
from autotuner.paths import STUDIES_SCHEMA, is_file
from storage.database import Database
from storage.errors import StorageError

OLDEST = 13
"""PostgreSQL's own support for older ones has ended."""
_CLOCKS_MAY_DIFFER = timedelta(seconds=2)
_ENOUGH_CONNECTIONS = 20
"""As many as one process opens at most."""
_FACTS = text(
    """
    SELECT current_setting('server_version') AS version,
      CAST(current_setting('server_version_num') AS integer) / 10000 AS major,
      current_setting('server_encoding') AS encoding,
      current_setting('fsync') = 'on' AS syncs,
      current_setting('synchronous_commit') AS acknowledges,
      pg_is_in_recovery() AS standby,
      clock_timestamp() AS now,
      current_user AS who,
      COALESCE(current_schema(), '') AS schema_name,
      COALESCE(has_schema_privilege(current_schema(), 'CREATE'), false) AS makes_tables,
      COALESCE(has_table_privilege(to_regclass('promotions'), 'INSERT'), true) AS writes,
      COALESCE(
        (SELECT has_schema_privilege(oid, 'USAGE') FROM pg_namespace WHERE nspname = :studies),
        has_database_privilege(current_database(), 'CREATE')
      ) AS searches,
      CAST(current_setting('max_connections') AS integer)
        - CAST(current_setting('superuser_reserved_connections') AS integer) AS connections,
      (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend') AS in_use
    """
)


@dataclass(frozen=True, kw_only=True)
class ServerFacts:
    """What a server says of itself to the user of the store, and ``asked``, the time here when it did."""

    version: str
    major: int
    encoding: str
    syncs: bool
    acknowledges: str
    standby: bool
    now: datetime
    asked: datetime
    who: str
    schema_name: str
    makes_tables: bool
    writes: bool
    searches: bool
    connections: int
    in_use: int


def server_checks(store: str) -> tuple[Check, ...]:
    """The checks of a server that answers; none for a file, and none where the check of the database says why not."""
    from storage.read_only import read_only

    try:
        if is_file(store):
            return ()
        with read_only(store) as database:
            facts = server_facts(database)
    except StorageError:
        return ()
    return check_version(facts), check_clock(facts), check_rights(facts), check_connections(facts)


def server_facts(database: Database) -> ServerFacts:
    """Ask the server. Raises ``StorageError``."""
    with database.read() as connection:
        row = connection.execute(_FACTS, {"studies": STUDIES_SCHEMA}).one()
        asked = datetime.now(UTC)
    return ServerFacts(**row._mapping, asked=asked)


def check_version(facts: ServerFacts) -> Check:
    """The release, the encoding, and whether what it has acknowledged is on its disk."""
    name, found = "server", f"PostgreSQL {facts.version}, {facts.encoding}"
    if facts.major < OLDEST:
        return warning(name, f"{found}: too old", f"upgrade it to {OLDEST} or newer")
    if facts.encoding != "UTF8":
        return warning(
            name, f"{found}: not every text can be kept", "createdb --encoding UTF8 --template template0"
        )
    if not facts.syncs:
        return warning(name, f"{found}, fsync off: a power cut loses what was acknowledged", "set fsync = on")
    if facts.acknowledges == "off":
        return warning(
            name,
            f"{found}, synchronous_commit off: a crash loses what was acknowledged",
            "set synchronous_commit = on",
        )
    return Check(name=name, found=found)


def check_clock(facts: ServerFacts) -> Check:
    """Whether clocks agree: a lease on a device ends by the clock of who looks at it."""
    name, differs = "server clock", abs(facts.now - facts.asked)
    found = f"differs by {differs.total_seconds():.1f} s from this machine's"
    if differs <= _CLOCKS_MAY_DIFFER:
        return Check(name=name, found=found)
    return warning(name, f"{found}; a lease lasts 30 s", "set both clocks by NTP (timedatectl set-ntp true)")


def check_rights(facts: ServerFacts) -> Check:
    """Whether this user may do here what a run does."""
    name, who = "server rights", facts.who
    if facts.standby:
        return warning(
            name, "a standby, which can be read alone", "name its primary with --db or AUTOTUNE_DB"
        )
    if not facts.writes:
        return warning(
            name, f"{who} may not write", f"GRANT ALL ON ALL TABLES IN SCHEMA {facts.schema_name} TO {who}"
        )
    if not facts.makes_tables:
        place = facts.schema_name or "public"
        found = f"{who} may not make or upgrade tables in schema {place}"
        return warning(name, found, f"GRANT CREATE ON SCHEMA {place} TO {who}")
    if not facts.searches:
        fix = f"CREATE SCHEMA {STUDIES_SCHEMA} AUTHORIZATION {who}"
        return warning(name, f"{who} may not make the schema {STUDIES_SCHEMA}, where studies are kept", fix)
    return Check(name=name, found=f"{who} may read, write and make tables")


def check_connections(facts: ServerFacts) -> Check:
    """Whether there are connections left for another process."""
    name, found = "server connections", f"{facts.in_use} of {facts.connections} in use"
    if facts.connections - facts.in_use >= _ENOUGH_CONNECTIONS:
        return Check(name=name, found=found)
    return warning(name, f"{found}; a process opens {_ENOUGH_CONNECTIONS} at most", "raise max_connections")
