from __future__ import annotations

import re
from pathlib import Path

from tests.support.command import Cli

README = Path(__file__).parents[2] / "README.md"


def _blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)


def test_the_trading_script_runs_as_printed(autotune: Cli) -> None:
    (script,) = _blocks("python")
    lines = [line for line in script.splitlines() if line.strip()]
    assert len(lines) <= 10
    printed = autotune.python(script).strip().splitlines()
    assert len(eval(printed[0])) == 8
    assert "'num_samples_used': 256" in printed[-1]
    assert "torch_compile_success" in printed[-1]


def test_the_workload_file_in_the_readme_is_read(autotune: Cli) -> None:
    from autotuner.workload import read_workload

    (text,) = _blocks("toml")
    path = autotune.folder / "mix.toml"
    path.write_text(text)
    assert [shape.prediction_length for shape in read_workload(path).shapes] == [8, 64]


def test_every_command_the_readme_names_exists_and_has_an_example(autotune: Cli) -> None:
    from click.testing import CliRunner

    from autotuner.cli import cli

    text = README.read_text(encoding="utf-8")
    for name in cli.list_commands(None):  # type: ignore[arg-type]
        assert f"autotune {name}" in text or f"/ `{name}`" in text, f"README does not name {name}"
        shown = CliRunner().invoke(cli, [name, "--help"])
        assert shown.exit_code == 0, shown.output
        assert f"autotune {name}" in shown.output.replace("Usage: cli", "")
    assert autotune.folder.is_dir()
