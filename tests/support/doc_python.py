"""Runs Python blocks of pages in one child process, so that torch is imported once and nothing of it stays here."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self


class PythonBlocks:
    """A child process; ``run`` gives it one block after the other. Blocks of one page share their names."""

    def __init__(self) -> None:
        self._child = subprocess.Popen(
            [sys.executable, "-W", "error::SyntaxWarning", "-m", "tests.support.doc_python"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._child.kill()
        self._child.communicate()

    def run(
        self, page: str, code: str, *, where: str, folder: Path, environment: Mapping[str, str]
    ) -> tuple[bool, str]:
        """Whether the block ran to its end, and what it printed, a traceback included."""
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        job = {"page": page, "code": code, "where": where, "folder": str(folder), "env": dict(environment)}
        self._child.stdin.write(json.dumps(job) + "\n")
        self._child.stdin.flush()
        answer = json.loads(self._child.stdout.readline())
        return bool(answer["ok"]), str(answer["printed"])


def _serve() -> None:
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")  # torch's own output must not mix with answers
    os.dup2(2, 1)
    names: dict[str, dict[str, Any]] = {}
    for line in sys.stdin:
        job = json.loads(line)
        os.chdir(job["folder"])
        os.environ.update(job["env"])
        printed, ok = io.StringIO(), True
        with contextlib.redirect_stdout(printed):
            try:
                code = compile(job["code"], job["where"], "exec")
                exec(code, names.setdefault(job["page"], {"__name__": "__main__"}))
            except BaseException:
                ok = False
                traceback.print_exc(file=printed)
        answers.write(json.dumps({"ok": ok, "printed": printed.getvalue()}) + "\n")
        answers.flush()


if __name__ == "__main__":
    _serve()
