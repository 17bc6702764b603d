"""Which settings a snapshot would have a machine start from, and which environments are this machine's."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection

from autotuner.environment import current_environment
from autotuner.machine.engine_versions import engine_names
from autotuner.serving.canary import canary_of
from storage.snapshot import Snapshot

DEVICES = ("cpu", "cuda")


def environments_here() -> frozenset[str]:
    """Fingerprints of this machine, one for each device and engine."""
    return frozenset(
        current_environment(device, engine).fingerprint for device in DEVICES for engine in engine_names()
    )


def settings_wanted(snapshot: Snapshot, more: Collection[str] = ()) -> dict[str, frozenset[str]]:
    """By environment fingerprint the settings keys that processes there may start from.

    What a canary stays with, and pins, are among them; ``more`` are environments that only pins may concern.
    """
    found: dict[str, set[str]] = defaultdict(set)
    for entry in snapshot.entries:
        found[entry.environment_fingerprint].add(entry.settings_key)
        try:
            canary = canary_of(entry.promised_json)
        except ValueError:  # a lookup says it
            continue
        if canary is not None:
            found[entry.environment_fingerprint].add(canary.previous.key)
    pinned = {pin.settings_key for pin in snapshot.pins}
    return {name: frozenset(found.get(name, set()) | pinned) for name in {*found, *more}}
