"""How a cluster and its environments are named, and what must be installed to reach one."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec
from urllib.parse import urlsplit

from autotuner.errors import AutotuneError, UsageError

ON_THIS_MACHINE = "ray"
CLIENT_PORT = 10001
UNNAMED = "without a name: give the label or the fingerprint of an environment"


def refuse_without_ray() -> None:
    """Raise ``AutotuneError`` where Ray is not installed."""
    if find_spec("ray") is None:
        raise AutotuneError("ray missing: pip install 'toto-autotune[cluster]'")


def refuse_address(address: str) -> None:
    """Raise ``UsageError`` for what is no address of a cluster."""
    fault = fault_of(address)
    if fault is not None:
        raise UsageError(f"--on {fault}")


def refuse_environments(names: Iterable[str]) -> None:
    """Raise ``UsageError`` where one has no name."""
    if has_unnamed(names):
        raise UsageError(f"--environment {UNNAMED}")


def has_unnamed(names: Iterable[str]) -> bool:
    """Whether one of them is blank."""
    return any(not each.strip() for each in names)


def fault_of(address: str) -> str | None:
    """Why this is no address of a cluster."""
    if "@" in address:  # it may hold a secret, which anybody would read in the list of processes
        return (
            "with a user name or a password: Ray takes none, and others see it; give ray://HOST[:PORT] alone"
        )
    if address == ON_THIS_MACHINE or _is_of_a_client(address):
        return None
    return (
        f"{address!a}: give ray, the cluster that this machine belongs to, or ray://HOST[:PORT], "
        f"by its client port, {CLIENT_PORT} unless told otherwise"
    )


def _is_of_a_client(address: str) -> bool:
    try:
        parts = urlsplit(address)
        rest = parts.path.strip("/") or parts.query or parts.fragment
        return parts.scheme == "ray" and bool(parts.hostname) and parts.port != 0 and not rest
    except ValueError:
        return False
