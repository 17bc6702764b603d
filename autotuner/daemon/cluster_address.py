"""How a cluster is named."""

from __future__ import annotations

from urllib.parse import urlsplit

from autotuner.errors import UsageError

ON_THIS_MACHINE = "ray"
CLIENT_PORT = 10001


def refuse_address(address: str, name: str = "--on") -> None:
    """Raise ``UsageError`` for what is no address of a cluster; ``name`` is what gave it."""
    if address != ON_THIS_MACHINE and not _is_of_a_client(address):
        raise UsageError(
            f"{name} {address!a}: give ray, the cluster that this machine belongs to, or ray://HOST[:PORT], "
            f"by its client port, {CLIENT_PORT} unless told otherwise"
        )


def _is_of_a_client(address: str) -> bool:
    try:
        parts = urlsplit(address)
        return (
            parts.scheme == "ray" and bool(parts.hostname) and parts.port != 0 and not parts.path.strip("/")
        )
    except ValueError:
        return False
