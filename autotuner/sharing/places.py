"""Where releases lie: a folder, a web server (to read alone), or what fsspec reaches, such as S3 and the Hugging Face
hub.

A place is never trusted: ``fetching`` bounds every read, and checks what was read.
"""

from __future__ import annotations

import base64
import os
import stat
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Protocol
from urllib.parse import unquote, urlsplit

from autotuner.errors import AutotuneError, UsageError, cause
from autotuner.sharing.release import POINTER
from storage.masking import masked_address
from storage.whole_files import written_whole

_CHUNK = 1 << 20
_TIMEOUT_S = 20.0
_FLAT = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oci", "oss", "hf"})
"""Kinds of places without folders: what is before a name is part of it."""


class PlaceError(AutotuneError):
    """A place cannot be reached, or does not give or take something; the message is one line."""


class Missing(PlaceError):  # noqa: N818 - reads as the message it stands for
    """A place answers, and has no such thing."""


class Place(Protocol):
    """Names are ours: ``release`` and ``blobs/<2 digits>/<sha256>``. Everything raises ``PlaceError``."""

    shown: str

    def read(self, name: str) -> Iterator[bytes]:
        """What has that name, in parts of at most a megabyte. Raises ``Missing``."""

    def size(self, name: str) -> int | None:
        """Bytes of what has that name, None when there is none."""

    def put(self, name: str, content: bytes | Path) -> None:
        """Keep content under a name, whole or not at all where the place can."""


def place_at(url: str) -> Place:
    """The place that a path or URL names; nothing is asked of it yet. Raises ``UsageError``."""
    scheme, separator, rest = url.partition("://")
    if not separator or scheme == "file":
        return Folder(_local_path(url))
    if not rest:
        raise UsageError(f"{url}: names no place: give a folder, file://, https://, s3:// or hf://")
    if scheme in {"http", "https"}:
        return WebPlace(url)
    return _through_fsspec(scheme, url)


def _local_path(url: str) -> Path:
    if not url.startswith("file://"):
        try:
            return Path(url).expanduser()
        except RuntimeError:
            raise UsageError(f"{url}: there is no such user's home folder") from None
    parts = urlsplit(url)
    if parts.netloc not in {"", "localhost"} or not parts.path:
        raise UsageError(f"{url}: write file:///absolute/folder")
    return Path(unquote(parts.path))


class Folder:
    """A folder of this machine or of a mounted file system."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.shown = str(folder)

    def read(self, name: str) -> Iterator[bytes]:
        """As ``Place`` says."""
        path = self._folder / name
        with _failing(f"{path} cannot be read"), os.fdopen(_open_file(path), "rb") as file:
            yield from _parts_of(file)

    def size(self, name: str) -> int | None:
        """As ``Place`` says."""
        path = self._folder / name
        try:
            with _failing(f"{path} cannot be read"):
                return path.stat().st_size
        except Missing:
            return None

    def put(self, name: str, content: bytes | Path) -> None:
        """As ``Place`` says; others may read it, as trading hosts run as other users."""
        path = self._folder / name
        with _failing(f"{path} cannot be written"):
            for level in (*reversed(path.parent.parents), path.parent):
                if not level.exists():
                    level.mkdir(mode=0o755, exist_ok=True)
            with written_whole(path, mode=0o644) as aside, aside.open("wb") as file:
                for part in _parts(content):
                    file.write(part)


class WebPlace:
    """What a web server gives out of such a folder."""

    def __init__(self, url: str) -> None:
        """A user and a password may stand before the host. Raises ``UsageError`` for what is no URL."""
        self.shown = masked_address(url.rstrip("/"))
        try:
            parts = urlsplit(url)
            _ = parts.port
        except ValueError:
            raise UsageError(f"{self.shown}: is no URL of a web server") from None
        if parts.query or parts.fragment:
            raise UsageError(f"{self.shown}: names of files are put behind it, so it cannot have a ? or #")
        login, at, host = parts.netloc.rpartition("@")
        self._url = parts._replace(netloc=host, path=parts.path.rstrip("/")).geturl()
        self._login = base64.b64encode(unquote(login).encode()).decode() if at else ""

    def read(self, name: str) -> Iterator[bytes]:
        """As ``Place`` says."""
        asked = urllib.request.Request(f"{self._url}/{name}", headers={"Cache-Control": "no-cache"})  # noqa: S310
        if self._login:  # to this host alone, wherever it sends us
            asked.add_unredirected_header("Authorization", f"Basic {self._login}")
        with _failing(f"{self.shown}/{name} cannot be read"):
            try:
                answer = urllib.request.urlopen(asked, timeout=_TIMEOUT_S)  # noqa: S310 - http and https alone
            except urllib.error.HTTPError as error:
                kind = Missing if error.code in {404, 410} else PlaceError
                raise kind(f"{self.shown}/{name} cannot be read: HTTP {error.code}") from None
            with answer:
                yield from _parts_of(answer)

    def size(self, name: str) -> int | None:
        """Never asked: nothing is put here."""
        raise self._refusal()

    def put(self, name: str, content: bytes | Path) -> None:
        """Not possible."""
        raise self._refusal()

    def _refusal(self) -> UsageError:
        return UsageError(
            f"{self.shown}: a web server is read alone: share to the folder or bucket that it serves"
        )


class FsspecPlace:
    """What one of fsspec's file systems holds; S3 and the like put a file whole or not at all."""

    def __init__(self, url: str, filesystem: Any, root: str) -> None:
        self.shown = masked_address(url.rstrip("/"))
        self._files = filesystem
        self._root = root.rstrip("/")
        self._flat = url.partition("://")[0] in _FLAT

    def read(self, name: str) -> Iterator[bytes]:
        """As ``Place`` says."""
        with _failing(f"{self.shown}/{name} cannot be read"):
            self._forget()
            with self._files.open(f"{self._root}/{name}", "rb") as file:
                yield from _parts_of(file)

    def size(self, name: str) -> int | None:
        """As ``Place`` says."""
        try:
            with _failing(f"{self.shown}/{name} cannot be read"):
                return int(self._files.size(f"{self._root}/{name}"))
        except Missing:
            return None

    def put(self, name: str, content: bytes | Path) -> None:
        """As ``Place`` says."""
        path = f"{self._root}/{name}"
        with _failing(f"{self.shown}/{name} cannot be written"):
            if not self._flat:  # else it would make buckets that nobody asked for
                self._files.makedirs(path.rpartition("/")[0], exist_ok=True)
            with self._files.open(path, "wb") as file:
                for part in _parts(content):
                    file.write(part)
            self._forget()

    def _forget(self) -> None:
        """fsspec keeps listings: what others put there since would not be seen."""
        self._files.invalidate_cache()


class HubPlace(FsspecPlace):
    """A repository of the Hugging Face hub: a release is one commit, which is made when its pointer is put."""

    def __init__(self, url: str, filesystem: Any, root: str) -> None:
        super().__init__(url, filesystem, root)
        self._pending: list[Any] = []

    def put(self, name: str, content: bytes | Path) -> None:
        """As ``Place`` says; what is put before the pointer must stay as it is until then."""
        from huggingface_hub import CommitOperationAdd, HfApi

        with _failing(f"{self.shown}/{name} cannot be written"):
            at = self._files.resolve_path(f"{self._root}/{name}")
            self._pending.append(CommitOperationAdd(path_in_repo=at.path_in_repo, path_or_fileobj=content))
            if name != POINTER:
                return
            operations, self._pending = self._pending, []
            HfApi(endpoint=self._files.endpoint, token=self._files.token).create_commit(
                at.repo_id,
                operations,
                commit_message="Release of autotune",
                repo_type=at.repo_type,
                revision=at.revision,
            )
            self._forget()


def _through_fsspec(scheme: str, url: str) -> Place:
    shown = masked_address(url)
    try:
        import fsspec

        filesystem, root = fsspec.core.url_to_fs(url)
    except ImportError as error:
        package = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "abfs": "adlfs", "az": "adlfs"}
        install = package.get(scheme, "toto-autotune[share]")
        raise UsageError(
            f"{shown}: {scheme}:// needs another package ({error}): pip install {install}"
        ) from None
    except ValueError as error:
        raise UsageError(f"{shown}: {error}: give a folder, file://, https://, s3:// or hf://") from None
    except Exception as error:  # whatever a file system raises when it is made
        raise PlaceError(f"{shown} cannot be reached: {cause(error)}") from None
    return (HubPlace if scheme == "hf" else FsspecPlace)(url, filesystem, root)


def _open_file(path: Path) -> int:
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a pipe would wait for its writer
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise OSError("it is not a file")


def _parts(content: bytes | Path) -> Iterator[bytes]:
    if isinstance(content, bytes):
        yield content
        return
    with content.open("rb") as file:
        yield from _parts_of(file)


def _parts_of(file: IO[bytes]) -> Iterator[bytes]:
    while part := file.read(_CHUNK):
        yield part


@contextmanager
def _failing(what: str) -> Iterator[None]:
    """Raise whatever a place raises as ``PlaceError``; file systems of fsspec raise anything."""
    try:
        yield
    except AutotuneError:
        raise
    except (FileNotFoundError, NotADirectoryError):
        raise Missing(f"{what}: it is not there") from None
    except OSError as error:
        reason = error.strerror or getattr(error, "reason", None) or error
        raise PlaceError(f"{what}: {reason}") from None
    except Exception as error:
        raise PlaceError(f"{what}: {cause(error)}") from None
