"""Finds out from its bytes what a file is, unpacks it, and refuses what holds no table of prices."""

from __future__ import annotations

import gzip
import io
import zipfile
import zlib

from toto_core.prices.options import SeriesError

_MOST_BYTES, _ALWAYS_BYTES, _MOST_TIMES = 8 << 30, 16 << 20, 200
"""What an archive may unpack to, what it may in any case, and how many times its own size.

Tables of prices shrink to a tenth or so; zeros shrink to a thousandth, so that a few megabytes fill any memory.
"""
_MOST_WRAPPINGS = 3
_HEAD_BYTES = 4_096
_BLANK = b"\x00\x1a \t\r\n\xef\xbb\xbf"
_PARQUET = b"PAR1"
_GZIP = b"\x1f\x8b"
_ZIP = (b"PK\x03\x04", b"PK\x05\x06")
_REFUSED = (
    (b"\xd0\xcf\x11\xe0", "an Excel workbook of the old kind: save it as CSV"),
    (b"BZh", "a bzip2 archive: unpack it first"),
    (b"\xfd7zXZ", "an xz archive: unpack it first"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive: unpack it first"),
    (b"7z\xbc\xaf", "a 7-Zip archive: unpack it first"),
    (b"Rar!", "a RAR archive: unpack it first"),
    (b"ARROW1", "an Arrow (Feather) file: save it as Parquet or CSV"),
    (b"FEA1", "a Feather file: save it as Parquet or CSV"),
    (b"\x89HDF", "an HDF5 file: save it as Parquet or CSV"),
    (b"SQLite format 3", "an SQLite database: save its table as CSV or Parquet"),
    (b"%PDF", "a PDF document: prices are read from CSV or Parquet"),
    (b"\x80", "a Python pickle, which is never loaded: save it as Parquet or CSV"),
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself: fetch it with git lfs pull"),
)
_WEB_PAGE = (b"<!doctype", b"<html", b"<head", b"<body", b"<script", b"<!--")
_LEFT_BEHIND = (b"\x00", b"\x1a")  # what old editors and disks leave at an end
_BOMS = (
    (b"\xff\xfe\x00\x00", "utf-32"),
    (b"\x00\x00\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
    (b"\xef\xbb\xbf", "utf-8-sig"),
)


def unpacked(content: bytes, label: str) -> bytes:
    """The file inside gzip or a zip archive of one file, however it is named; other bytes as they are.

    Raises SeriesError for workbooks, web pages and whatever else cannot hold a table of prices.
    """
    most = min(_MOST_BYTES, max(_ALWAYS_BYTES, _MOST_TIMES * len(content)))
    for _ in range(_MOST_WRAPPINGS):
        if content.startswith(_GZIP):
            content = _gunzipped(content, label, most)
        elif content.startswith(_ZIP):
            content = _only_file(content, label, most)
        else:
            break
    reason = _no_table(content)
    if reason is not None:
        raise SeriesError(f"{label}: {reason}")
    return content


def is_parquet(content: bytes) -> bool:
    """Whether these are the bytes of a Parquet file."""
    return content.startswith(_PARQUET)


def as_utf8(content: bytes, label: str) -> bytes:
    """Text in UTF-8 without a byte order mark or what editors leave behind its end.

    Text without a mark is read as UTF-8, else as Windows-1252. Raises SeriesError for neither.
    """
    for mark, encoding in _BOMS:
        if content.startswith(mark):
            return _decoded(content, encoding, label).encode()
    if content[1:200:2].count(0) > len(content[1:200:2]) // 2:  # what Windows calls "Unicode", unmarked
        return _decoded(content, "utf-16-le", label).encode()
    if content.endswith(_LEFT_BEHIND):
        content = content.rstrip(b"\x00\x1a \r\n")
    if content.isascii():
        return content
    try:
        content.decode()
    except UnicodeDecodeError:
        return _decoded(content, "cp1252", label).encode()
    return content


def _no_table(content: bytes) -> str | None:
    """Why the bytes cannot be a table, None when they may be one."""
    if not content[:_HEAD_BYTES].strip(_BLANK) and not content.strip(_BLANK):  # the second copies the file
        return "the file is empty"
    for mark, reason in _REFUSED:
        if content.startswith(mark):
            return reason
    begin = content[:200].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if begin.startswith(_WEB_PAGE):
        return "a web page, such as a server's error, not prices: download it again"
    if begin.startswith(b"<?xml"):
        return "an XML document: prices are read from CSV or Parquet"
    if begin.startswith((b"{", b"[")):
        return "JSON, such as an API's answer: save its table as CSV or Parquet"
    return None


def _gunzipped(content: bytes, label: str, most: int) -> bytes:
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(content)) as file:
            return _bounded(file.read(most + 1), label, most)
    except (OSError, EOFError, zlib.error) as error:
        raise SeriesError(f"{label}: not a sound gzip file ({error})") from error


def _only_file(content: bytes, label: str, most: int) -> bytes:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            files = [
                info for info in archive.infolist() if not info.is_dir() and "__MACOSX" not in info.filename
            ]
            names = {info.filename for info in files}
            if "[Content_Types].xml" in names or any(name.startswith("xl/") for name in names):
                raise SeriesError(f"{label}: an Excel workbook: save it as CSV")
            if "content.xml" in names:
                raise SeriesError(f"{label}: an OpenDocument workbook: save it as CSV")
            if len(files) != 1:
                raise SeriesError(f"{label}: a zip archive of {len(files)} files: unpack it and name one")
            with archive.open(files[0]) as file:
                return _bounded(file.read(most + 1), label, most)
    except SeriesError:
        raise
    except Exception as error:  # an archive that lies about its own places can fail in any way
        raise SeriesError(f"{label}: not a sound zip archive ({error})") from error


def _bounded(content: bytes, label: str, most: int) -> bytes:
    if len(content) > most:
        raise SeriesError(
            f"{label}: unpacks to more than {most >> 20:,} MiB, which no table of prices of its size does: "
            "unpack it yourself if it is one"
        )
    return content


def _decoded(content: bytes, encoding: str, label: str) -> str:
    try:
        return content.decode(encoding).rstrip("\x00\x1a \r\n")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise SeriesError(f"{label}, line {line}: not UTF-8 text: save the file as UTF-8") from error
