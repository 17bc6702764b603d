"""Manifests of artifacts: nothing outside the folders is touched, and nothing that differs is used."""

from __future__ import annotations

import json
from pathlib import Path

from autotuner.serving.manifest import MANIFEST, Damaged, add_files, link_verified
from tests.faults.fuzzing import json_mutation, scratch
from tests.faults.fuzzing.verdicts import check, refused_with

SECONDS = 0.5
mutated = json_mutation.document
_FILES = {"packages/a.pt2": b"compiled", "inductor/b.so": b"library", "inductor/x/c.json": b"{}"}


def seeds() -> tuple[bytes, ...]:
    made, folder = scratch.empty_folder("manifests/made"), scratch.empty_folder("manifests/seed")
    for name, content in _FILES.items():
        (made / name).parent.mkdir(parents=True, exist_ok=True)
        (made / name).write_bytes(content)
    add_files(made, folder)
    return ((folder / MANIFEST).read_bytes(), b'{"format": 1, "files": {}}')


def one(data: bytes) -> None:
    folder, into = scratch.empty_folder("manifests/stored"), scratch.empty_folder("manifests/into")
    outside = scratch.folder("manifests") / "outside"
    outside.write_bytes(b"outside")
    for name, content in _FILES.items():
        (folder / name).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
        (folder / name).chmod(0o600)
    (folder / MANIFEST).write_bytes(data)
    (folder / MANIFEST).chmod(0o600)
    with refused_with(Damaged):
        summary = link_verified(folder, into)
        check(summary is None or summary.files == _count(into), "as many files as it says")
    for path in into.rglob("*"):
        name = path.relative_to(into).as_posix()
        check(path.is_dir() or name in _FILES, f"{name!a} was linked")
    check(outside.read_bytes() == b"outside" and outside.stat().st_nlink == 1, "a file outside was linked")
    add_files(folder, folder)
    json.loads((folder / MANIFEST).read_text(encoding="utf-8"))


def _count(folder: Path) -> int:
    return sum(path.is_file() for path in folder.rglob("*"))
