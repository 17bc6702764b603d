"""Runs the blocks of one page in a folder of its own: commands, Python, and files that are read as they would be.

What is another thing than on a reader's machine, so that a page takes a second and not minutes:

- AMD was tuned before the first block, and ``autotune run`` is given ``--replay`` with a table of recorded answers:
  prices, options, search, duel and store are real, timings are not. Where the page shows a refusal it is run as
  it stands.
- ``compare``, ``selftest`` and ``recheck`` take recorded answers in place of child processes in the same way.
- ``TOTO_DISABLE_COMPILE=1`` is set, so that a forecast is made in eager mode instead of compiling first.
- What serves (``dashboard``, ``studies``, ``daemon``) is started as a process on a free port, asked for its page, and
  ended by SIGINT or SIGTERM behind the last command of its block. Addresses in the commands between are exchanged.
- The daemon has a budget of no seconds a day: it looks, takes back and serves, but tunes nothing.
- ``crontab`` is a program of ours that keeps its table in the folder, and ``HOME`` is the folder.

Output in a page is an illustration; the exit code counts, and a line that begins with ``Error:`` must be said.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
import tomllib
import urllib.error
import urllib.request
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from autotuner.cli import cli
from autotuner.commands import compare, recheck, selftest
from autotuner.daemon.config import read_config
from autotuner.measurement.recorded import Recorded, ReplayTable
from autotuner.measurement.replay import ReplayRunner, TimingNoise
from autotuner.search.space import SearchSpace
from autotuner.tuning.measuring import MeasuringPlan
from autotuner.workload import read_workload
from tests.support.doc_pages import ROOT, Block, Command, commands
from tests.support.doc_python import PythonBlocks
from toto_core.settings import COMPILE_MODES, RuntimeSettings

TABLE = ROOT / "tests" / "data" / "seed" / "results.csv"
ENDED_BY = {"dashboard": signal.SIGINT, "studies": signal.SIGINT, "daemon": signal.SIGTERM}
SERVED_AT = {
    "dashboard": ("127.0.0.1:8484", "/"),
    "studies": ("127.0.0.1:8080", "/dashboard/"),
    "daemon": ("127.0.0.1:9478", "/metrics"),
}
"""Where pages say that a command serves, and what is asked of it."""
_CONFIG_TABLES = {"daemon", "defaults", "engines", "prices", "share", "symbols", "sync"}
_SECONDS = 30.0
_CRONTAB = """#!/bin/sh
case "$1" in
    -l) [ -e "$HOME/table" ] || { echo "no crontab for you" >&2; exit 1; }; cat "$HOME/table" ;;
    -) cat > "$HOME/table" ;;
    -r) rm "$HOME/table" ;;
esac
"""


@dataclass(kw_only=True)
class PageRunner:
    """A folder with a store in which AMD is tuned, and what is run in it."""

    page: str
    folder: Path
    python: PythonBlocks
    serving: dict[str, subprocess.Popen[str]] = field(default_factory=dict)
    addresses: dict[str, str] = field(default_factory=dict)

    @property
    def store(self) -> Path:
        """The store that commands use where they name none."""
        return self.folder / "autotune.db"

    @property
    def environment(self) -> dict[str, str]:
        """Variables of everything that is run."""
        return {
            "AUTOTUNE_DB": str(self.store),
            "AUTOTUNE_CACHE": str(self.folder / "cache"),
            "AUTOTUNE_DAEMON__BUDGET_SECONDS_PER_DAY": "0",
            "COLUMNS": "120",
            "HOME": str(self.folder),
            "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
            "TOTO_DISABLE_COMPILE": "1",
            "XDG_DATA_HOME": str(self.folder / "data"),
        }

    def prepare(self) -> None:
        """The programs that a page may call besides ours."""
        code = "from autotuner.cli import main; main()"
        programs = {
            "autotune": f"#!/bin/sh\nexec {sys.executable} -c '{code}' \"$@\"\n",
            "python": f'#!/bin/sh\nexec {sys.executable} "$@"\n',
            "crontab": _CRONTAB,
        }
        (self.folder / "bin").mkdir()
        for name, text in programs.items():
            program = self.folder / "bin" / name
            program.write_text(text)
            program.chmod(0o700)

    def run(self, block: Block) -> None:
        """Run or read one block. Raises ``AssertionError`` that says where and what."""
        if block.title is not None:
            path = self.folder / block.title
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text, encoding="utf-8")
        if block.language == "console":
            self._console(block)
        elif block.language == "python":
            ok, printed = self.python.run(
                self.page, block.text, where=block.where, folder=self.folder, environment=self.environment
            )
            assert ok, f"{block.where}: {printed}"
        elif block.language == "sh":
            self._shell(block.where, block.text)
        elif block.language == "toml":
            self._toml(block)
        elif block.language == "json":
            json.loads(block.text)

    def _toml(self, block: Block) -> None:
        path = self.folder / (block.title or "block.toml")
        path.write_text(block.text, encoding="utf-8")
        if tomllib.loads(block.text).keys() & _CONFIG_TABLES:
            read_config(path)
        else:
            read_workload(path)

    def _console(self, block: Block) -> None:
        try:
            for command in commands(block):
                self._command(f"{block.page.name}:{command.line}: {command.text}", command)
        finally:
            self._end()

    def _command(self, where: str, command: Command) -> None:
        text = command.text
        for asked, served in self.addresses.items():
            text = text.replace(asked, served)
        words = shlex.split(text, comments=True)
        file = None
        if ">" in words:
            words, (file,) = words[: words.index(">")], words[words.index(">") + 1 :]
        if words[0] == "curl":
            with urllib.request.urlopen(words[-1], timeout=10) as answer:
                assert answer.status == 200, where
        elif words[0] != "autotune" or "--once" in words or re.search(r"[|`&;]|\$\(", text):
            self._shell(where, text)  # a daemon handles signals: not in this process
        elif words[1] in SERVED_AT:
            self._serve(where, words)
        else:
            self._autotune(where, words[1:], file, command.error)

    def _autotune(self, where: str, arguments: list[str], file: str | None, error: str | None) -> None:
        if arguments[0] == "run" and "--replay" not in arguments and error is None:
            arguments = [*arguments, "--replay", str(TABLE)]
            arguments += [] if "--db" in arguments else ["--db", str(self.store)]
        with pytest.MonkeyPatch.context() as patch, contextlib.chdir(self.folder):
            for name, value in self.environment.items():
                patch.setenv(name, value)
            for module in (compare, recheck, selftest):
                patch.setattr(module, "plan_measuring", _recorded)
            result = CliRunner().invoke(cli, arguments, prog_name="autotune")
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise AssertionError(f"{where}: {result.output}") from result.exception
        if file is not None:
            (self.folder / file).write_text(result.stdout, encoding="utf-8")
        if error is None:
            assert result.exit_code == 0, f"{where}: {result.output}"
            return
        said = " ".join(result.stderr.replace(f"{self.folder}/", "").split())
        assert result.exit_code != 0, f"{where}: refuses nothing"
        assert error in said, f"{where}: said {said!r}"

    def _shell(self, where: str, text: str) -> None:
        with subprocess.Popen(
            ["bash", "-euo", "pipefail", "-c", text],
            cwd=self.folder,
            env=os.environ | self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        ) as process:
            try:
                said, _ = process.communicate(timeout=_SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                raise
        assert process.returncode == 0, f"{where}: {said}"

    def _serve(self, where: str, words: list[str]) -> None:
        name, port = words[1], _free_port()
        documented, page = SERVED_AT[name]
        environment = os.environ | self.environment | {"AUTOTUNE_DAEMON__HTTP": f"127.0.0.1:{port}"}
        process = subprocess.Popen(
            [*words, *([] if name == "daemon" else ["--port", str(port)])],
            cwd=self.folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            executable=str(self.folder / "bin" / "autotune"),
        )
        self.serving[name] = process
        self.addresses[documented] = f"127.0.0.1:{port}"
        assert _answers(f"http://127.0.0.1:{port}{page}", process), f"{where}: serves nothing"

    def _end(self) -> None:
        self.addresses.clear()
        while self.serving:
            name, process = self.serving.popitem()
            process.send_signal(ENDED_BY[name])
            try:
                _, said = process.communicate(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
                raise
            assert process.returncode == 0, f"{name} ended with {process.returncode}: {said}"


def _recorded(*_: Any, **__: Any) -> MeasuringPlan:
    modes = [RuntimeSettings(compile_mode=mode) for mode in COMPILE_MODES]
    entry = Recorded(latency_ms=(10.0,), sigma_ms=(0.5,), cost_s=0.01)
    arms = (*modes, *selftest.equal_arms(modes[0]))
    table = ReplayTable(entries=dict.fromkeys(arms, entry), reference=modes[0])
    runner = ReplayRunner(table, TimingNoise(seed=1))
    return MeasuringPlan(space=SearchSpace.of(modes), make_runner=lambda _: runner)


def _free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        return int(listener.getsockname()[1])


def _answers(address: str, process: subprocess.Popen[str]) -> bool:
    end = time.monotonic() + 20
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(urllib.error.URLError), urllib.request.urlopen(address, timeout=5) as answer:
            return bool(answer.status == 200)
        time.sleep(0.05)
    return False
