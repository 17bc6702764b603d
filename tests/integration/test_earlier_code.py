"""Code written for the earlier integration with only its imports changed: calls, members, metadata, errors."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.support.tiny_model import save_tiny_model
from toto_core import RuntimeSettings, TotoPipeline, compile_config
from toto_core.device import DeviceError
from toto_core.earlier_cache import CacheUnavailableError
from toto_core.settings import SettingsError

CALLS = json.loads((Path(__file__).parents[1] / "data" / "calls.json").read_text(encoding="utf-8"))
VARIABLES = (
    "TOTO_MODEL_ID",
    "TOTO_CHECKPOINT_PATH",
    "TOTO_NUM_SAMPLES",
    "TOTO_SAMPLES_PER_BATCH",
    "TOTO_DTYPE",
    "TOTO_TORCH_DTYPE",
    "TOTO_COMPILE",
    "TOTO_COMPILE_MODE",
    "TOTO_COMPILE_BACKEND",
    "REAL_TOTO_COMPILE_MODE",
    "REAL_TOTO_COMPILE_BACKEND",
    "TOTO_DISABLE_COMPILE",
    "TORCHINDUCTOR_CACHE_DIR",
    "TORCHDYNAMO_CAPTURE_SCALAR_OUTPUTS",
)
PRICES = 100.0 + torch.sin(torch.arange(96.0) / 5.0)
CONTEXTS: dict[str, Any] = {
    "1-D tensor": PRICES,
    "1-D numpy float32": PRICES.numpy(),
    "list of floats": PRICES.tolist(),
    "2-D tensor of 3 rows": torch.stack([PRICES, 2 * PRICES, PRICES + 5]),
}
EARLIER_KEYS = {
    "num_samples_requested",
    "num_samples_used",
    "samples_per_batch_requested",
    "samples_per_batch_used",
    "torch_dtype",
    "torch_compile_requested",
    "torch_compile_success",
    "torch_compile_mode",
    "torch_compile_backend",
    "batch_size",
}
Call = dict[str, Any]


@pytest.fixture(autouse=True)
def nothing_from_outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(compile_config, "_applied", [])
    monkeypatch.setattr(compile_config, "_filled_in", {})
    monkeypatch.setenv("AUTOTUNE_CACHE", str(tmp_path / "cache"))
    for name in VARIABLES:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model that loads in milliseconds, for what is not about the model."""
    return save_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


def load(call: Call, **changes: Any) -> TotoPipeline:
    """The call as it stands in the file: what is positional, and types by their name."""
    keywords = {**call, **changes}
    positional = [keywords.pop("(positional)")] if "(positional)" in keywords else []
    for name in ("torch_dtype", "amp_dtype"):
        if keywords.get(name):
            keywords[name] = getattr(torch, keywords[name].removeprefix("torch."))
    return TotoPipeline.from_pretrained(*positional, **keywords)


def predict(pipeline: TotoPipeline, call: Call) -> Any:
    keywords = dict(call)
    positional = [CONTEXTS[keywords.pop("(positional)")]] if "(positional)" in keywords else []
    if "context" in keywords:
        keywords["context"] = CONTEXTS[keywords["context"]]
    return pipeline.predict(*positional, **keywords)


def check_every_predict(pipeline: TotoPipeline) -> None:
    for call in CALLS["predict"]:
        result = predict(pipeline, call)
        rows = 3 if "2-D tensor of 3 rows" in call.values() else 1
        samples, steps = call.get("num_samples", 256), call["prediction_length"]
        assert len(result) == len(list(result)) == rows
        for row in result:
            assert isinstance(row.samples, np.ndarray)
            assert row.samples.shape == (1, 1, steps, samples)
            assert row.numpy().shape == (samples, steps)
            assert np.array_equal(row.samples[0, 0].T, row.numpy())
            assert np.isfinite(row.numpy()).all()
        metadata = pipeline.last_run_metadata
        assert metadata.keys() >= EARLIER_KEYS
        assert metadata["num_samples_requested"] == metadata["num_samples_used"] == samples
        together = min(call.get("samples_per_batch", samples), samples)
        assert metadata["samples_per_batch_requested"] == metadata["samples_per_batch_used"] == together
        assert metadata["batch_size"] == rows
        assert metadata["torch_dtype"] == "torch.float32"


def wants_compilation(call: Call) -> bool:
    return bool(call.get("torch_compile"))


COMPILED = [call for call in CALLS["from_pretrained"] if wants_compilation(call)]


def name_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls that name no model mean the one of the variable."""
    monkeypatch.setenv("TOTO_MODEL_ID", "toto-mini")


@pytest.mark.parametrize("call", CALLS["from_pretrained"], ids=json.dumps)
def test_every_call_loads_and_answers_every_predict(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    # Compiling takes half a minute a shape: here those calls hold it, `make exhaustive` lets them compile.
    name_the_model(monkeypatch)
    compiled = wants_compilation(call)
    pipeline = load(call, **({"warmup_sequence": 0} if compiled else {}))
    assert pipeline.compiled is pipeline.settings.compiled is compiled
    if compiled:
        assert pipeline.settings.compile_mode == call.get("compile_mode", "reduce-overhead")
        pipeline.hold_compilation()
    check_every_predict(pipeline)
    assert pipeline.last_run_metadata["torch_compile_requested"] is compiled


@pytest.mark.exhaustive
@pytest.mark.parametrize("call", COMPILED, ids=json.dumps)
@pytest.mark.timeout(1800)
def test_every_compiled_call_compiles_and_answers_every_predict(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    name_the_model(monkeypatch)
    pipeline = load(call)
    check_every_predict(pipeline)
    assert pipeline.compiled
    metadata = pipeline.last_run_metadata
    assert metadata["torch_compile_success"] is True
    assert metadata["torch_compile_mode"] == call.get("compile_mode", "reduce-overhead")
    assert metadata["torch_compile_backend"] == "inductor"


@pytest.mark.exhaustive  # the same pipeline compiles, keeps and finds in the suite
@pytest.mark.slow
@pytest.mark.compiling
def test_a_compiled_call_is_warm_when_it_returns_keeps_what_it_compiled_and_only_finds_it(
    tiny: str,
) -> None:
    def loaded(**keywords: Any) -> TotoPipeline:
        return TotoPipeline.from_pretrained(tiny, "cpu", torch.float32, torch_compile=True, **keywords)

    with pytest.raises(CacheUnavailableError, match="none is stored for these settings"):
        loaded(cache_policy="only")
    first = loaded(cache_policy="prefer", warmup_sequence=64, compile_mode="default")
    assert first.compiled
    assert first.compile_report.graphs == 1
    assert first.compile_report.cache_hits == 0
    eager = TotoPipeline.from_pretrained(tiny)
    expected = eager.predict(PRICES[:64], 8)
    np.testing.assert_allclose(first.predict(PRICES[:64], 8)[0].numpy(), expected[0].numpy(), rtol=1e-5)
    assert first.compile_report.graphs == 1  # the shape of a call that says nothing was warmed up
    metadata = first.last_run_metadata
    assert metadata["torch_compile_success"] is True
    assert (metadata["torch_compile_mode"], metadata["torch_compile_backend"]) == ("default", "inductor")

    again = loaded(cache_policy="only", warmup_sequence=64, compile_mode="default")
    assert again.compile_report.cache_hits == 1

    with pytest.raises(CacheUnavailableError, match="none is stored"):
        loaded(cache_policy="only", compile_mode="default", force_refresh=True)


def test_the_three_first_arguments_may_be_positional(tiny: str) -> None:
    pipeline = TotoPipeline.from_pretrained(tiny, torch.device("cpu"), torch.bfloat16)
    assert pipeline.settings == RuntimeSettings(precision="bf16")
    pipeline.predict(PRICES, 8, 16)
    assert pipeline.last_run_metadata["torch_dtype"] == "torch.bfloat16"


def test_a_call_without_keywords_of_the_earlier_integration_is_what_it_is_today(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TOTO_COMPILE", "1")
    monkeypatch.setenv("TOTO_DTYPE", "bfloat16")
    monkeypatch.setenv("TOTO_NUM_SAMPLES", "16")
    pipeline = TotoPipeline.from_pretrained("toto-mini")
    forecast = pipeline.predict(PRICES)
    assert pipeline.settings == RuntimeSettings()
    assert forecast.samples is not None
    assert forecast.samples.shape == (1, 1, 8, 256)


def test_the_variables_of_the_earlier_integration_steer_calls_that_say_nothing_themselves(
    tiny: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOTO_MODEL_ID", "nowhere")
    monkeypatch.setenv("TOTO_CHECKPOINT_PATH", tiny)
    monkeypatch.setenv("TOTO_NUM_SAMPLES", "24")
    monkeypatch.setenv("TOTO_SAMPLES_PER_BATCH", "8")
    monkeypatch.setenv("TOTO_TORCH_DTYPE", "bfloat16")
    monkeypatch.setenv("TOTO_COMPILE", "1")
    monkeypatch.setenv("TOTO_COMPILE_MODE", "max-autotune")
    pipeline = TotoPipeline.from_pretrained(device_map="cpu")
    assert pipeline.patch_size == 16
    assert pipeline.settings == RuntimeSettings(
        compile_mode="max-autotune", precision="bf16", samples_per_batch=8
    )
    pipeline.hold_compilation()
    assert pipeline.predict(PRICES, 8)[0].numpy().shape == (24, 8)
    assert pipeline.predict(PRICES, 8, 4)[0].numpy().shape == (4, 8)
    assert pipeline.predict_many({"A": PRICES}, 8)["A"][0].numpy().shape == (24, 8)
    monkeypatch.setenv("TOTO_DISABLE_COMPILE", "1")
    assert not TotoPipeline.from_pretrained(device_map="cpu", torch_compile=True).compiled
    monkeypatch.setenv("TOTO_DTYPE", "float32")
    said = TotoPipeline.from_pretrained(tiny, device_map="cpu", torch_dtype=torch.bfloat16)
    assert said.settings.precision == "bf16"


def test_a_call_that_names_no_model_says_which_one_it_got() -> None:
    with pytest.warns(
        UserWarning, match=r"no model was named: loading toto-mini.*Datadog/Toto-Open-Base-1\.0"
    ):
        assert TotoPipeline.from_pretrained().patch_size == 32


def test_a_variable_that_is_no_number_is_said_and_ignored(tiny: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOTO_NUM_SAMPLES", "many")
    with pytest.warns(UserWarning, match="TOTO_NUM_SAMPLES=many is ignored"):
        pipeline = TotoPipeline.from_pretrained(tiny, "cpu")
    assert pipeline.num_samples == 256


def test_settings_that_were_applied_hold_for_calls_that_say_nothing(
    tiny: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert compile_config.apply(verbose=False) > 0
    pipeline = TotoPipeline.from_pretrained(tiny, device_map="cpu")
    assert pipeline.settings == RuntimeSettings(compile_mode="reduce-overhead", recompile_limit=32)
    assert not TotoPipeline.from_pretrained(tiny, device_map="cpu", torch_compile=False).compiled


def test_the_rows_of_a_table_are_variates_of_one_request_and_entries_of_the_result(tiny: str) -> None:
    pipeline = TotoPipeline.from_pretrained(tiny, device_map="cpu")
    table = CONTEXTS["2-D tensor of 3 rows"]
    result = pipeline.predict(table, 8, 16)
    assert result.samples is not None
    assert result.samples.shape == (1, 3, 8, 16)
    together = pipeline.predict(table[None], 8, 16)
    assert len(together) == 1
    assert together[0].shape == (16, 3, 8)
    for index, row in enumerate(result):
        assert torch.equal(row, together[0][:, index])
    assert [row.shape for row in result[-2:]] == [(16, 8)] * 2
    assert pipeline.predict(PRICES[:, None], 8, 16)[0].shape == (16, 8)
    assert len(pipeline.predict(PRICES.tolist(), 8, 16)) == 1


def test_one_step_is_samples_by_steps_too(tiny: str) -> None:
    pipeline = TotoPipeline.from_pretrained(tiny, device_map="cpu")
    entry = pipeline.predict(PRICES, 1, 16)[0]
    assert entry.numpy().shape == (16, 1)
    assert float(np.median(entry.numpy())) == pytest.approx(float(np.median(entry.samples)))


def test_what_had_no_meaning_there_is_accepted_and_changes_nothing(tiny: str) -> None:
    pipeline = TotoPipeline.from_pretrained(tiny, device_map="cpu", cache_policy="NEVER")
    plain = pipeline.predict(PRICES, 8, 16)[0].numpy()
    ignored: Call = {"temperature": 0.3, "top_k": 5, "top_p": 0.9, "time_interval_seconds": 60}
    assert np.array_equal(pipeline.predict(PRICES, 8, 16, **ignored)[0].numpy(), plain)


def test_members_that_are_read_are_there_until_the_model_is_unloaded(tiny: str) -> None:
    pipeline = TotoPipeline.from_pretrained(tiny, device_map="cpu")
    assert pipeline.compiled is False
    assert pipeline.device.type == "cpu"
    assert isinstance(pipeline.model, torch.nn.Module)
    assert next(pipeline.model.parameters()).dtype == torch.float32
    assert not pipeline.last_run_metadata
    pipeline.unload()
    assert pipeline.model is None


def test_autocast_counts_on_cuda_only_and_float16_on_a_cpu_is_said_once_and_float32(tiny: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        by_autocast = TotoPipeline.from_pretrained(tiny, "cpu", amp_dtype=torch.float16, amp_autocast=True)
    assert by_autocast.settings.precision == "fp32"
    with pytest.warns(UserWarning, match="float16 is not offered on a CPU: running float32") as caught:
        halved = TotoPipeline.from_pretrained(tiny, "cpu", torch.float16)
    assert halved.settings.precision == "fp32"
    assert [warning.filename for warning in caught] == [__file__]


@pytest.mark.parametrize(
    ("keywords", "error", "message"),
    [
        ({"device_map": "mps"}, DeviceError, "device 'mps' is not supported; use cpu or cuda"),
        ({"device": "tpu"}, DeviceError, "device 'tpu' is not known; use cpu or cuda"),
        (
            {"cache_policy": "always"},
            ValueError,
            "cache_policy must be one of prefer, never, only, not 'always'",
        ),
        ({"cache_policy": "only"}, RuntimeError, "cache_policy='only' asks for a compile cache"),
        ({"torch_dtype": torch.float64}, ValueError, "torch_dtype must be float32, bfloat16 or float16"),
        (
            {"torch_compile": True, "compile_mode": "fastest"},
            SettingsError,
            "compile_mode must be one of eager",
        ),
        ({"warmup_sequence": -1}, ValueError, "warmup_sequence must be a number of time steps"),
        ({"max_oom_retries": -1}, ValueError, "max_oom_retries must be a whole number of at least 0"),
        ({"min_num_samples": 0}, ValueError, "min_num_samples must be a whole number of at least 1"),
        ({"torch_kompile": True}, TypeError, "unexpected keyword argument 'torch_kompile'"),
    ],
)
def test_what_cannot_be_done_is_one_clear_line(
    tiny: str, keywords: Call, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message) as raised:
        TotoPipeline.from_pretrained(tiny, **keywords)
    assert "\n" not in str(raised.value)


def test_a_keyword_that_predict_never_had_is_refused(tiny: str) -> None:
    with pytest.raises(TypeError, match=r"predict\(\) got an unexpected keyword argument 'samples'"):
        TotoPipeline.from_pretrained(tiny).predict(PRICES, samples=4)


def test_keywords_that_contradict_explicit_settings_are_one_clear_error(tiny: str) -> None:
    settings = RuntimeSettings(precision="bf16")

    def loaded(**keywords: Any) -> TotoPipeline:
        return TotoPipeline.from_pretrained(tiny, settings=settings, **keywords)

    for keywords in ({"torch_compile": True}, {"compile_model": True}, {"compile_mode": "default"}):
        with pytest.raises(
            SettingsError, match="the keywords ask for compile=True and the settings say False"
        ):
            loaded(**keywords)
    with pytest.raises(SettingsError, match="ask for precision=fp32 and the settings say bf16; give one"):
        loaded(torch_dtype="float32")
    agreed = loaded(
        torch_dtype="bfloat16", torch_compile=False, compile_mode="max-autotune", max_oom_retries=0
    )
    assert agreed.settings == settings
    assert agreed.ladder.retries == 0


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        (
            {"compile_backend": "cudagraphs"},
            "compile_backend=cudagraphs is ignored: only inductor is supported",
        ),
        ({"cache_manager": object()}, "cache_manager is ignored"),
    ],
)
def test_what_is_ignored_is_said(tiny: str, keywords: Call, message: str) -> None:
    with pytest.warns(UserWarning, match=message):
        TotoPipeline.from_pretrained(tiny, **keywords)


def test_the_feedback_loop_finds_the_sizes_it_writes_back(tiny: str) -> None:
    pipeline = TotoPipeline.from_pretrained(tiny, device_map="cpu", compile_model=False)
    pipeline.predict(PRICES, prediction_length=8, num_samples=64, samples_per_batch=512)
    metadata = pipeline.last_run_metadata
    assert (metadata["num_samples_used"], metadata["samples_per_batch_used"]) == (64, 64)
    assert json.loads(json.dumps(metadata)) == metadata


DOCUMENTED_CALLS: tuple[Callable[[], object], ...] = (
    compile_config.apply,
    lambda: TotoPipeline.from_pretrained("toto-mini", device_map="cpu", torch_compile=True),
)


def test_what_the_documentation_says_of_earlier_code_holds() -> None:
    text = " ".join(
        (Path(__file__).parents[2] / "docs" / "how-to" / "production.md").read_text(encoding="utf-8").split()
    )
    for said in (
        "toto_core.compile_config.apply()",
        "TotoPipeline.from_pretrained(id, device_map=..., torch_compile=True)",
        "predict(...)[0].numpy()",
        "last_run_metadata",
        "unload()",
    ):
        assert f"`{said}`" in text
    for call in DOCUMENTED_CALLS:
        assert call()
    pipeline = TotoPipeline.from_pretrained("toto-mini", device_map="cpu", torch_compile=False)
    assert pipeline.predict(PRICES, 8, 16)[0].numpy().shape == (16, 8)
    assert pipeline.last_run_metadata
    pipeline.unload()
