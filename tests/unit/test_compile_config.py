from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch._dynamo

from autotuner import lookup
from tests.support.snapshots import BF16, entry, published
from toto_core import compile_config
from toto_core.settings import COMPILE_MODES, DEFAULT_RECOMPILE_LIMIT, RuntimeSettings

VARIABLES = (
    "TOTO_COMPILE_MODE",
    "TOTO_COMPILE",
    "TOTO_COMPILE_BACKEND",
    "REAL_TOTO_COMPILE_MODE",
    "REAL_TOTO_COMPILE_BACKEND",
    "TOTO_DISABLE_COMPILE",
    "TORCHDYNAMO_CAPTURE_SCALAR_OUTPUTS",
    "TORCHINDUCTOR_CACHE_DIR",
)
FILLED_IN = {
    "TORCHDYNAMO_CAPTURE_SCALAR_OUTPUTS": "1",
    "TOTO_COMPILE": "1",
    "TOTO_COMPILE_MODE": "reduce-overhead",
    "TOTO_COMPILE_BACKEND": "inductor",
}
EAGER = RuntimeSettings()


@pytest.fixture(autouse=True)
def nothing_applied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compile_config, "_applied", [])
    monkeypatch.setattr(compile_config, "_filled_in", {})
    for name in VARIABLES:  # set first, so that what apply fills in is taken away again
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


def applied(environ: dict[str, str] | None = None) -> RuntimeSettings:
    """What pipelines run under after ``apply``."""
    compile_config.apply(environ=environ)
    return compile_config.defaults()


def test_without_any_variable_a_pipeline_runs_eagerly() -> None:
    assert compile_config.defaults() == EAGER
    assert compile_config.defaults(torch_compile=False) == EAGER


def test_torch_compile_alone_asks_for_reduce_overhead() -> None:
    assert compile_config.defaults(torch_compile=True) == RuntimeSettings(compile_mode="reduce-overhead")


@pytest.mark.parametrize("mode", COMPILE_MODES)
def test_apply_makes_the_mode_of_the_variable_the_default(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOTO_COMPILE_MODE", f" {mode} ")
    assert applied().compile_mode == mode
    assert compile_config.defaults() == compile_config.defaults(torch_compile=True)


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
    assert applied() == EAGER


@pytest.mark.parametrize("value", ["0", "false", "No", "off"])
def test_toto_compile_can_be_switched_off(value: str) -> None:
    assert applied({"TOTO_COMPILE": value, "TOTO_COMPILE_MODE": "default"}) == EAGER


@pytest.mark.parametrize("value", ["", "0", "false"])
def test_a_kill_switch_that_is_off_changes_nothing(value: str) -> None:
    assert applied({"TOTO_DISABLE_COMPILE": value, "TOTO_COMPILE_MODE": "default"}).compile_mode == "default"


def test_empty_variables_are_as_good_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    empty = {"TOTO_COMPILE_MODE": "", "TOTO_COMPILE_BACKEND": "", "TOTO_COMPILE": ""}
    assert applied(empty).compile_mode == "reduce-overhead"


def test_an_unknown_mode_warns_and_is_ignored() -> None:
    with pytest.warns(UserWarning, match="TOTO_COMPILE_MODE=fastest is ignored: known are eager, default"):
        assert applied({"TOTO_COMPILE_MODE": "fastest"}).compile_mode == "reduce-overhead"


def test_another_backend_warns_and_is_ignored() -> None:
    with pytest.warns(UserWarning, match="TOTO_COMPILE_BACKEND=cudagraphs is ignored"):
        assert applied({"TOTO_COMPILE_BACKEND": "cudagraphs"}).compile_mode == "reduce-overhead"


def test_the_recompile_limit_the_caller_set_in_torch_is_taken_over_and_else_it_is_32() -> None:
    assert torch._dynamo.config.recompile_limit == DEFAULT_RECOMPILE_LIMIT
    assert applied({}).recompile_limit == 32
    assert (
        torch._dynamo.config.recompile_limit == DEFAULT_RECOMPILE_LIMIT
    )  # the process's own stays the caller's
    with torch._dynamo.config.patch(recompile_limit=16):
        assert applied({}).recompile_limit == 16
    compile_config._applied.clear()
    assert compile_config.defaults(torch_compile=True).recompile_limit == DEFAULT_RECOMPILE_LIMIT


def test_apply_fills_in_what_is_not_set_counts_it_and_does_so_once() -> None:
    assert compile_config.apply() == len(FILLED_IN) + 2  # the folder of caches, and the recompile limit
    assert {name: os.environ.get(name) for name in FILLED_IN} == FILLED_IN
    assert Path(os.environ["TORCHINDUCTOR_CACHE_DIR"]).is_absolute()
    assert compile_config.apply() == 0
    assert compile_config.applied()


def test_apply_leaves_what_is_set_and_does_not_switch_on_what_is_switched_off() -> None:
    environ = {"TOTO_DISABLE_COMPILE": "1", "TOTO_COMPILE_MODE": "default", "TORCHINDUCTOR_CACHE_DIR": "here"}
    assert compile_config.apply(environ=environ) == 2
    assert environ["TOTO_COMPILE_MODE"] == "default"
    assert "TOTO_COMPILE" not in environ


def test_what_apply_filled_in_is_told_from_what_somebody_wishes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOTO_COMPILE_BACKEND", "inductor")
    compile_config.apply()
    assert compile_config.filled_in("TOTO_COMPILE_MODE")
    assert not compile_config.filled_in("TOTO_COMPILE_BACKEND")
    monkeypatch.setenv("TOTO_COMPILE_MODE", "default")
    assert not compile_config.filled_in("TOTO_COMPILE_MODE")


def test_a_mode_that_apply_filled_in_does_not_override_what_a_symbol_was_promoted_to(tmp_path: Path) -> None:
    db = str(tmp_path / "autotune.db")
    published(db, entry(settings=BF16))
    compile_config.apply()
    found = lookup("AMD", db=db)
    assert (found.source, found.settings) == ("promotion", BF16)


def test_the_variables_of_the_trading_process_go_before_the_others() -> None:
    environ = {"TOTO_COMPILE_MODE": "default", "REAL_TOTO_COMPILE_MODE": "max-autotune"}
    assert applied(environ).compile_mode == "max-autotune"
    with pytest.warns(UserWarning, match="REAL_TOTO_COMPILE_BACKEND=aot is ignored"):
        applied({"TOTO_COMPILE_BACKEND": "inductor", "REAL_TOTO_COMPILE_BACKEND": "aot"})


@pytest.mark.parametrize("case", ["maximum_performance", "balanced", "debugging", "accuracy_first"])
def test_what_is_recommended_for_a_use_case_can_be_applied(case: str) -> None:
    recommended = compile_config.get_recommended_settings()
    assert recommended[case].pop("notes")
    compiled = applied(recommended[case]).compiled
    assert compiled is (case != "accuracy_first")


def test_verbose_prints_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    mode = {"TOTO_COMPILE_MODE": "default"}
    compile_config.apply(environ=mode)
    assert capsys.readouterr().out == ""
    compile_config.apply(verbose=True, environ=mode)
    assert capsys.readouterr().out == "toto compile settings: default fp32 recompile_limit=32\n"
    compile_config.apply(True, environ={**mode, "TOTO_COMPILE_BACKEND": ""})
    assert capsys.readouterr().out.endswith("; set TOTO_COMPILE_BACKEND=inductor\n")
