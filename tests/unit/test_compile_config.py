from __future__ import annotations

import pytest
import torch._dynamo

from toto_core import compile_config
from toto_core.settings import COMPILE_MODES, DEFAULT_RECOMPILE_LIMIT, RuntimeSettings

VARIABLES = ("TOTO_COMPILE_MODE", "TOTO_COMPILE", "TOTO_COMPILE_BACKEND", "TOTO_DISABLE_COMPILE")
EAGER = RuntimeSettings()


@pytest.fixture(autouse=True)
def nothing_applied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compile_config, "_applied", [])
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def test_without_any_variable_a_pipeline_runs_eagerly() -> None:
    assert compile_config.defaults() == EAGER
    assert compile_config.defaults(torch_compile=False) == EAGER


def test_torch_compile_alone_asks_for_reduce_overhead() -> None:
    assert compile_config.defaults(torch_compile=True) == RuntimeSettings(compile_mode="reduce-overhead")


@pytest.mark.parametrize("mode", COMPILE_MODES)
def test_apply_makes_the_mode_of_the_variable_the_default(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOTO_COMPILE_MODE", f" {mode} ")
    applied = compile_config.apply()
    assert applied.compile_mode == mode
    assert compile_config.defaults() == compile_config.defaults(torch_compile=True) == applied


def test_torch_compile_false_wins_over_what_was_applied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOTO_COMPILE_MODE", "max-autotune")
    compile_config.apply()
    assert compile_config.defaults(torch_compile=False) == EAGER


@pytest.mark.parametrize("value", ["1", "true", "YES", " on "])
def test_the_kill_switch_wins_over_everything(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    compile_config.apply(environ={"TOTO_COMPILE_MODE": "max-autotune"})
    monkeypatch.setenv("TOTO_DISABLE_COMPILE", value)
    assert compile_config.defaults() == EAGER
    assert compile_config.defaults(torch_compile=True) == EAGER
    assert compile_config.apply() == EAGER


@pytest.mark.parametrize("value", ["0", "false", "No", "off"])
def test_toto_compile_can_be_switched_off(value: str) -> None:
    assert compile_config.apply(environ={"TOTO_COMPILE": value, "TOTO_COMPILE_MODE": "default"}) == EAGER


@pytest.mark.parametrize("value", ["", "0", "false"])
def test_a_kill_switch_that_is_off_changes_nothing(value: str) -> None:
    applied = compile_config.apply(environ={"TOTO_DISABLE_COMPILE": value, "TOTO_COMPILE_MODE": "default"})
    assert applied.compile_mode == "default"


def test_empty_variables_are_as_good_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    empty = {"TOTO_COMPILE_MODE": "", "TOTO_COMPILE_BACKEND": "", "TOTO_COMPILE": ""}
    assert compile_config.apply(environ=empty) == RuntimeSettings(compile_mode="reduce-overhead")


def test_an_unknown_mode_warns_and_is_ignored() -> None:
    with pytest.warns(UserWarning, match="TOTO_COMPILE_MODE=fastest is ignored: known are eager, default"):
        applied = compile_config.apply(environ={"TOTO_COMPILE_MODE": "fastest"})
    assert applied.compile_mode == "reduce-overhead"


def test_another_backend_warns_and_is_ignored() -> None:
    with pytest.warns(UserWarning, match="TOTO_COMPILE_BACKEND=cudagraphs is ignored"):
        applied = compile_config.apply(environ={"TOTO_COMPILE_BACKEND": "cudagraphs"})
    assert applied.compile_mode == "reduce-overhead"


def test_the_recompile_limit_the_caller_set_in_torch_is_taken_over() -> None:
    assert compile_config.apply(environ={}).recompile_limit == DEFAULT_RECOMPILE_LIMIT
    with torch._dynamo.config.patch(recompile_limit=32):
        assert compile_config.apply(environ={}).recompile_limit == 32
        assert compile_config.defaults().recompile_limit == 32


def test_verbose_prints_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    compile_config.apply(environ={"TOTO_COMPILE_MODE": "default"})
    assert capsys.readouterr().out == ""
    compile_config.apply(verbose=True, environ={"TOTO_COMPILE_MODE": "default"})
    assert capsys.readouterr().out == "toto compile settings: default fp32\n"
