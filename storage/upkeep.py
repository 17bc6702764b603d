"""Queries on what keeps a machine in order: leases of devices, compile artifacts, telemetry, self-tests."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from datetime import datetime, timedelta
from operator import attrgetter

from sqlalchemy import Connection, Update, select, update

from storage.checks import json_fault
from storage.errors import InvalidRecord
from storage.models import ARTIFACTS, LEASES, SELFTESTS, TELEMETRY
from storage.records import ArtifactRecord, LeaseRecord, SelfTestRecord, TelemetryRecord
from storage.rows import Queries, append_all, columns, insert_if_absent, matching, to_record


class Upkeep(Queries):
    """What keeps a machine in order."""

    def acquire_lease(self, device: str, owner: str, now: datetime, ttl_s: float) -> LeaseRecord | None:
        """The right to measure on `device` until `now + ttl_s`; None while any lease of it runs.

        The token is larger than that of every lease of the device before. Raises `InvalidRecord`.
        """
        wanted = _lease(device, owner, 1, now, ttl_s)
        with self._database.write() as connection:
            if insert_if_absent(connection, LEASES, wanted):
                return wanted
            free = (
                update(LEASES)
                .where(LEASES.c.device == device, LEASES.c.expires_at <= now)
                .values(token=LEASES.c.token + 1, **columns(wanted, leave_out=("device", "token")))
            )
            return _held(connection, device) if _changes_one(connection, free) else None

    def renew_lease(self, lease: LeaseRecord, now: datetime, ttl_s: float) -> LeaseRecord | None:
        """The lease prolonged until `now + ttl_s`; None when it has expired. Raises `InvalidRecord`."""
        renewed = _lease(lease.device, lease.owner, lease.token, now, ttl_s)
        prolong = _running(lease, now).values(heartbeat_at=now, expires_at=renewed.expires_at)
        with self._database.write() as connection:
            return _held(connection, lease.device) if _changes_one(connection, prolong) else None

    def release_lease(self, lease: LeaseRecord, now: datetime) -> bool:
        """End the lease at once; False when it had ended or passed on before."""
        with self._database.write() as connection:
            return _changes_one(connection, _running(lease, now).values(expires_at=now))

    def leases(self, now: datetime) -> tuple[LeaseRecord, ...]:
        """The leases that run at `now`, by device."""
        statement = select(LEASES).where(LEASES.c.expires_at > now).order_by(LEASES.c.device)
        return self._records(LeaseRecord, statement)

    def add_artifact(self, artifact: ArtifactRecord) -> int:
        """Store where artifacts lie; the id. Raises `MissingReference` when its environment is not stored."""
        return self._append(ARTIFACTS, artifact)

    def add_telemetry(self, telemetry: TelemetryRecord) -> int:
        """Store one window; the id. Raises `InvalidRecord` when its payload is no JSON."""
        return self._append(TELEMETRY, checked_window(telemetry))

    def add_new_telemetry(self, several: Sequence[TelemetryRecord]) -> list[bool]:
        """Store windows, some hundred at most, all or none, but those that are stored already, to the last letter.

        Of each whether it was new. Raises `InvalidRecord` as `add_telemetry` does.
        """
        if not several:
            return []
        for each in several:
            checked_window(each)
        names = ("symbol", "window_start", "payload_json")
        same = select(*(TELEMETRY.c[name] for name in names)).where(
            TELEMETRY.c.symbol.in_({each.symbol for each in several}),
            TELEMETRY.c.window_start.in_({each.window_start for each in several}),
        )
        own = attrgetter(*names)
        with self._database.write() as connection:
            known = {own(row) for row in connection.execute(same)}
            is_new = []
            for each in several:
                is_new.append(own(each) not in known)
                known.add(own(each))
            append_all(connection, TELEMETRY, itertools.compress(several, is_new))
        return is_new

    def telemetry(
        self, symbol: str | None = None, since: datetime | None = None
    ) -> tuple[TelemetryRecord, ...]:
        """The windows that match and start at `since` or later, oldest first."""
        statement = matching(TELEMETRY, symbol=symbol).order_by(TELEMETRY.c.window_start, TELEMETRY.c.id)
        if since is not None:
            statement = statement.where(TELEMETRY.c.window_start >= since)
        return self._records(TelemetryRecord, statement)

    def add_selftest(self, selftest: SelfTestRecord) -> int:
        """Store one; the id. Raises `MissingReference` when its environment is not stored."""
        return self._append(SELFTESTS, selftest)

    def newest_selftest(self, environment_fingerprint: str) -> SelfTestRecord | None:
        """The last one of that environment, None when there was none."""
        statement = matching(SELFTESTS, environment_fingerprint=environment_fingerprint)
        newest_first = statement.order_by(SELFTESTS.c.measured_at.desc(), SELFTESTS.c.id.desc())
        return next(iter(self._records(SelfTestRecord, newest_first.limit(1))), None)


def checked_window(telemetry: TelemetryRecord) -> TelemetryRecord:
    """The same. Raises `InvalidRecord` when its payload is no JSON."""
    fault = json_fault(telemetry.payload_json)
    if fault:
        raise InvalidRecord(f"TelemetryRecord.payload_json {fault}")
    return telemetry


def _lease(device: str, owner: str, token: int, now: datetime, ttl_s: float) -> LeaseRecord:
    if not 0 < ttl_s <= timedelta.max.total_seconds() / 2:
        raise InvalidRecord(f"a lease cannot last {ttl_s} s: give a time above zero")
    ends = now + timedelta(seconds=ttl_s)
    return LeaseRecord(
        device=device, owner=owner, token=token, acquired_at=now, heartbeat_at=now, expires_at=ends
    )


def _running(lease: LeaseRecord, now: datetime) -> Update:
    return update(LEASES).where(
        LEASES.c.device == lease.device,
        LEASES.c.owner == lease.owner,
        LEASES.c.token == lease.token,
        LEASES.c.expires_at > now,
    )


def _changes_one(connection: Connection, statement: Update) -> bool:
    return connection.execute(statement).rowcount == 1


def _held(connection: Connection, device: str) -> LeaseRecord:
    return to_record(LeaseRecord, connection.execute(matching(LEASES, device=device)).one(), LEASES)
