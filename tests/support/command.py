"""Runs the real command line in a child process, with a store, data and cache folder of its own."""

from __future__ import annotations

import contextlib
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from toto_core.compiling.headers import HEADERS_VARIABLE

_MAIN = "from autotuner.cli import main; main()"


@dataclass(frozen=True)
class Cli:
    """``run`` and ``start`` call ``autotune``; everything it keeps lies under ``folder``."""

    folder: Path

    @property
    def db(self) -> Path:
        """The store."""
        return self.folder / "autotune.db"

    @property
    def interpreter(self) -> tuple[str, str]:
        """Python, and the code that is ``autotune``."""
        return sys.executable, _MAIN

    def environment(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        """Variables of a child: nothing of this process's own settings, all folders inside ``folder``."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if name == HEADERS_VARIABLE or not name.startswith(("TOTO_", "AUTOTUNE_"))
        }
        return {
            **kept,
            "AUTOTUNE_DB": str(self.db),
            "AUTOTUNE_CACHE": str(self.folder / "cache"),
            "XDG_DATA_HOME": str(self.folder / "data"),
            "COLUMNS": "200",
            **(extra or {}),
        }

    def start(self, *arguments: str, extra: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        """Start a command and return at once."""
        return subprocess.Popen(
            [sys.executable, "-c", _MAIN, *arguments],
            env=self.environment(extra),
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(
        self, *arguments: str, extra: Mapping[str, str] | None = None, timeout: float = 240.0
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        with self.start(*arguments, extra=extra) as process:
            try:
                out, err = process.communicate(timeout=timeout)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def on_a_terminal(
        self,
        *arguments: str,
        extra: Mapping[str, str] | None = None,
        until: str | None = None,
        timeout: float = 120.0,
    ) -> tuple[int, str]:
        """Run a command whose input and outputs are a terminal; its exit code, and all that it drew.

        One that goes on by itself is interrupted once it has drawn ``until``.
        """
        ours, theirs = pty.openpty()
        drawn: list[bytes] = []
        with subprocess.Popen(
            [sys.executable, "-c", _MAIN, *arguments],
            env=self.environment({"TERM": "xterm-256color", "COLUMNS": "100", **(extra or {})}),
            cwd=self.folder,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        ) as process:
            os.close(theirs)
            with contextlib.suppress(OSError):  # Linux says so that the other end is closed
                while block := os.read(ours, 1 << 16):
                    drawn.append(block)
                    if until is not None and until.encode() in b"".join(drawn):
                        process.send_signal(signal.SIGINT)
                        until = None
            os.close(ours)
            code = process.wait(timeout=timeout)
        return code, b"".join(drawn).decode()

    def python(self, code: str, extra: Mapping[str, str] | None = None) -> str:
        """Standard output of a Python program that sees the same folders."""
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=self.environment(extra),
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=True,
            timeout=240,
        )
        return done.stdout
