"""Ed25519 keys: made, read from a private file, written as text that fits a variable; what they vouch for."""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from autotuner.errors import AutotuneError, UsageError
from autotuner.files import failing_as, unsafe

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

KEY_VARIABLE = "AUTOTUNE_SYNC_KEY"
_PREFIX = "ed25519:"
_PUBLIC_BYTES = 32
_MOST_BYTES = 10_000


class BadSignature(AutotuneError):  # noqa: N818 - reads as the message it stands for
    """Nobody whose key is configured has signed this; the message is one line."""


@dataclass(frozen=True, kw_only=True)
class PublicKey:
    """What a host is configured with; ``name`` are 16 hexadecimal digits that tell keys apart."""

    raw: bytes

    @property
    def name(self) -> str:
        """A digest of the key, for messages and for choosing among several."""
        return hashlib.sha256(self.raw).hexdigest()[:16]

    def __str__(self) -> str:
        return _PREFIX + base64.b64encode(self.raw).decode()

    def vouches(self, signature: bytes, message: bytes) -> bool:
        """Whether its owner signed the message."""
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

        try:
            Ed25519PublicKey.from_public_bytes(self.raw).verify(signature, message)
        except (InvalidSignature, ValueError):
            return False
        return True


class SigningKey:
    """A private key; nothing of it is ever shown."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.public = PublicKey(raw=key.public_key().public_bytes_raw())

    def sign(self, message: bytes) -> bytes:
        """64 bytes."""
        return self._key.sign(message)


def need_cryptography() -> None:
    """Raise ``AutotuneError`` with what to install where signatures cannot be made or checked."""
    if find_spec("cryptography") is None:
        raise AutotuneError("cryptography is missing: pip install 'toto-autotune[share]'")


def make_key(path: Path) -> PublicKey:
    """Write a new private key to a file of mode 0600, which must not be there yet; its public half, also in FILE.pub.

    Raises ``UsageError`` for a file that is there, ``AutotuneError`` where it cannot be written.
    """
    need_cryptography()
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    text = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = SigningKey(key).public
    beside = path.with_name(f"{path.name}.pub")
    _write_new(beside, f"{public}\n".encode(), 0o644)
    try:
        _write_new(path, text, 0o600)
    except AutotuneError:  # of half a pair nobody has the use
        beside.unlink(missing_ok=True)
        raise
    return public


def _write_new(path: Path, content: bytes, mode: int) -> None:
    with failing_as(AutotuneError, f"{path} cannot be written"):
        try:
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode)
        except FileExistsError:
            raise UsageError(f"{path} is there already: a key is never replaced; name another file") from None
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            path.unlink(missing_ok=True)
            raise


def read_signing_key(path: Path) -> SigningKey:
    """The private key in a file that only this user can read.

    Raises ``UsageError`` for a file that is missing, no such key, or open to others.
    """
    need_cryptography()
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        content, fault = _private_content(path)
    except FileNotFoundError:
        raise UsageError(f"key {path}: no such file; `autotune share --new-key {path}` makes one") from None
    except OSError as error:
        raise UsageError(f"key {path} cannot be read: {error.strerror or error}") from None
    if fault:
        raise UsageError(
            f"key {path} {fault}: whoever reads it can sign code for every trading host; chmod 600"
        )
    try:
        key = load_pem_private_key(content, password=None)
    except Exception as error:  # whatever is in the file
        raise UsageError(
            f"key {path} is no private key without a password ({type(error).__name__})"
        ) from None
    if not isinstance(key, Ed25519PrivateKey):
        raise UsageError(f"key {path} is no Ed25519 key; `autotune share --new-key FILE` makes one")
    return SigningKey(key)


def _private_content(path: Path) -> tuple[bytes, str]:
    """The content and what is wrong with who may read it. Raises ``OSError``."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a pipe would wait for its writer
    with os.fdopen(descriptor, "rb") as file:
        state = os.fstat(descriptor)
        fault = unsafe(state, folder=False)
        if not fault and state.st_mode & 0o077:
            fault = "can be read by others"
        return (b"", fault) if fault else (file.read(_MOST_BYTES), "")


def read_public_keys(text: str | None) -> tuple[PublicKey, ...]:
    """The keys in a configured text, several of them apart by blanks or commas; none for no text.

    Raises ``UsageError`` for text that is no key.
    """
    words = (text or "").replace(",", " ").split()
    return tuple(_public_key(word) for word in words)


def _public_key(word: str) -> PublicKey:
    try:
        raw = base64.b64decode(word.removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if not word.startswith(_PREFIX) or len(raw) != _PUBLIC_BYTES:
        raise UsageError(
            f"key {word[:80]!r} is none: {KEY_VARIABLE} or [sync] key holds {_PREFIX}… as `autotune share --new-key` "
            "prints it"
        )
    return PublicKey(raw=raw)


def refuse_unsigned(
    keys: Iterable[PublicKey], named: str, signature: bytes, message: bytes, what: str
) -> PublicKey:
    """The configured key whose owner signed ``message``; ``named`` is the key that it says it is signed with.

    Raises ``BadSignature``.
    """
    need_cryptography()
    known = {key.name: key for key in keys}
    key = known.get(named)
    if key is None:
        raise BadSignature(
            f"{what} is signed with key {named}, configured is {' or '.join(known) or 'none'}: nothing of it is used"
        )
    if not key.vouches(signature, message):
        raise BadSignature(
            f"{what}: its signature is not that of key {named}: forged or damaged; nothing of it is used"
        )
    return key
