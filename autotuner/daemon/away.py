"""Environments of a cluster that have no node now: what is unsafe there must not stay because they are away."""

from __future__ import annotations

import contextlib
import json
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta

from autotuner.daemon.places import Place
from autotuner.environment import Environment
from autotuner.store import Store

SIDE_BY_SIDE = timedelta(days=30)
"""Where the last run ended so long before that in another environment of like machines, there was an upgrade."""
_NEVER = datetime(1, 1, 1, tzinfo=UTC)
Version = Sequence[Environment]
"""Environments that differ in their engine alone."""


def away_places(
    store: Store, device: str, owned: Collection[str], present: Sequence[Place]
) -> tuple[Place, ...]:
    """Where something is active that is owned, and none of the places that are ``present`` is.

    ``owned`` are labels and fingerprints of environments, none for all: one that was upgraded since stays owned. What
    like machines had before an upgrade is left out, but for the newest of it: it would only ever grow.
    """
    known = _known(store, device)
    names = {place.name for place in present}
    found = []
    for machine, versions in _versions(store, known, present).items():
        ever = (each for each in known.values() if each.machine == machine)
        if owned and {name for each in ever for name in (each.fingerprint, each.label)}.isdisjoint(owned):
            continue
        for version in _in_use(store, versions):
            environment, name = version[0], version[0].label or version[0].fingerprint
            name = f"{name} {environment.fingerprint}" if name in names else name
            names.add(name)
            found.append(Place(environment=environment, name=name, engines=tuple(version), is_away=True))
    return tuple(found)


def _known(store: Store, device: str) -> Mapping[str, Environment]:
    found = {}
    for record in store.records.environments():
        with contextlib.suppress(TypeError, ValueError):  # of another version of autotune
            environment = Environment.from_dict(json.loads(record.facts_json))
            if environment.device == device:
                found[record.fingerprint] = environment
    return found


def _versions(
    store: Store, known: Mapping[str, Environment], present: Sequence[Place]
) -> Mapping[str, Sequence[Version]]:
    """Of each machine what something is active for and no place is, what was promoted for last first."""
    versions: dict[str, list[list[Environment]]] = defaultdict(list)
    promoted = (each.environment_fingerprint for each in reversed(store.records.promoted_keys()))
    for environment in (known[each] for each in dict.fromkeys(promoted) if each in known):
        if any(place.like(environment) == environment for place in present):
            continue
        of_it = versions[environment.machine]
        same = (each for each in of_it if each[0].is_but_for_its_engine(environment))
        if (version := next(same, None)) is None:
            of_it.append(version := [])
        version.append(environment)
    return versions


def _in_use(store: Store, versions: Sequence[Version]) -> Iterator[Version]:
    ended = store.records.last_runs()
    last = [max(ended.get(each.fingerprint, _NEVER) for each in version) for version in versions]
    newest = max(last, default=_NEVER)
    for number, version in enumerate(versions):
        if not number or newest - last[number] <= SIDE_BY_SIDE:
            yield version
