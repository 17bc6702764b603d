"""Forks, outputs that cannot be written and arguments that are no text end in one line, never in a traceback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

FORKS = """
import os, sys, torch
torch.set_num_threads(2)
import numpy as np
from toto_core.pipeline import TotoPipeline
pipeline = TotoPipeline.from_pretrained("toto-mini")
context = 100 + np.sin(np.arange(512) / 5)
pipeline.predict(context, 8, 64)
child = os.fork()
if child == 0:
    try:
        pipeline.predict(context, 8, 64)
    except Exception as error:
        print(type(error).__name__, error, flush=True)
        os._exit(0)
    os._exit(1)
_, status = os.waitpid(child, 0)
pipeline.predict(context, 8, 64)
sys.exit(os.waitstatus_to_exitcode(status))
"""
MAIN = "from autotuner.cli import main; main()"
COMMANDS = [("--help",), ("config", "example"), ("doctor",)]


def test_a_pipeline_says_that_it_does_not_work_after_a_fork() -> None:
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", FORKS],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            out, _ = process.communicate(timeout=60)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0
    (line,) = out.splitlines()
    assert line.startswith("PipelineForkedError this pipeline was loaded in process ")
    assert "'spawn'" in line


def command(arguments: tuple[str | bytes, ...], folder: Path, **variables: str) -> list[str | bytes]:
    places = {"HOME": str(folder), "XDG_DATA_HOME": str(folder), "AUTOTUNE_DB": str(folder / "a.db")}
    set_to = [f"{name}={value}" for name, value in {**places, **variables}.items()]
    return ["env", *set_to, sys.executable, "-c", MAIN, *arguments]


@pytest.mark.parametrize("arguments", COMMANDS)
def test_a_full_disk_behind_the_output_is_one_line(arguments: tuple[str, ...], tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            command(arguments, tmp_path), stdout=full, stderr=subprocess.PIPE, check=False, timeout=60
        )
    assert done.returncode == 1
    assert done.stderr.decode() == "Error: the output cannot be written: No space left on device\n"


@pytest.mark.parametrize("arguments", COMMANDS)
def test_a_reader_that_is_gone_ends_a_command_quietly(arguments: tuple[str, ...], tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as gone:
        done = subprocess.run(
            command(arguments, tmp_path), stdout=gone, stderr=subprocess.PIPE, check=False, timeout=60
        )
    assert done.stderr == b""


def test_a_terminal_that_speaks_ascii_gets_escapes(tmp_path: Path) -> None:
    odd = tmp_path / "kurse-f\u00fcr-\u65e5\u672c"
    odd.mkdir()
    plain = {"LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    for arguments in (
        ("run", "--all", "--data", str(odd)),
        ("forecast", "--symbol", "AMD", "--data", str(odd)),
        ("show", "--symbol", "\u00e9"),
        ("list", "--db", str(odd / "a.db")),
    ):
        done = subprocess.run(
            command(arguments, tmp_path, **plain), capture_output=True, check=False, timeout=60
        )
        assert done.returncode in {1, 2}
        assert b"Traceback" not in done.stderr
        assert done.stderr.isascii()


@pytest.mark.parametrize(
    "arguments",
    [
        ("show", "--symbol", b"\xff\xfe"),
        ("forecast", "--symbol", "AMD", "--data", b"/tmp/\xff.csv"),
        ("list", "--db", b"/tmp/\xff/a.db"),
        (b"\xff",),
    ],
)
def test_arguments_that_are_no_text_are_refused_in_one_line(
    arguments: tuple[str | bytes, ...], tmp_path: Path
) -> None:
    done = subprocess.run(command(arguments, tmp_path), capture_output=True, check=False, timeout=60)
    assert done.returncode in {1, 2}
    assert b"Traceback" not in done.stderr
    assert done.stderr.decode().splitlines()[-1].startswith("Error: ")
