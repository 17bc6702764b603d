from __future__ import annotations

import json
import pickle
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.support.toto2_golden import FOLDERS, toto2_case
from tests.support.toto2_model import EVERYTHING, FOUR_M, TINY, random_weights, save_toto2_model
from toto_core.model_files import CheckpointError, check_weights, digest, locate
from toto_core.toto2 import Toto2Pipeline, checkpoint
from toto_core.toto2.model_config import Toto2Config

WEIGHT = "transformer.layers.0.attn.in_proj.weight"


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Threads that wait for each other beside another worker of the suite take a hundred times as long."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_toto2_model(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    save_toto2_model(tmp_path / "shards", shards=3)
    return tmp_path / "shards"


def refusal(folder: Path) -> str:
    with pytest.raises(CheckpointError) as refused:
        Toto2Pipeline.from_pretrained(folder)
    assert "\n" not in str(refused.value)
    assert str(folder) in str(refused.value)
    assert len(str(refused.value)) < 700
    return str(refused.value)


def with_fields(folder: Path, **changes: Any) -> None:
    file = folder / "config.json"
    fields = json.loads(file.read_text(encoding="utf-8"))
    fields |= changes
    kept = {name: value for name, value in fields.items() if value != "removed"}
    file.write_text(json.dumps(kept), encoding="utf-8")


def with_weights(file: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    weights = load_file(file)
    copied = {name: tensor.clone() for name, tensor in weights.items()}
    change(copied)
    save_file(copied, file)


@pytest.mark.parametrize("name", FOLDERS)
def test_the_official_fields_are_read_and_written_alike(name: str) -> None:
    fields = dict(toto2_case(name).about["config"])
    assert Toto2Config.from_official(fields).to_official() == fields


@pytest.mark.parametrize("name", FOLDERS)
def test_the_official_names_and_shapes_are_known(name: str) -> None:
    case = toto2_case(name)
    assert checkpoint.expected_shapes(case.config) == {k: tuple(t.shape) for k, t in case.weights.items()}


@pytest.mark.parametrize("name", FOLDERS)
def test_the_factors_of_residuals_are_those_of_the_paper(name: str) -> None:
    case = toto2_case(name)
    for layer in range(case.config.num_layers):
        stored = [float(case.weights[f"transformer.layers.{layer}.{tau}"]) for tau in ("attn_tau", "mlp_tau")]
        assert list(case.config.residual_factors(layer)) == pytest.approx(stored, rel=1e-6)


def test_the_4m_shape_has_its_parameters() -> None:
    shapes = checkpoint.expected_shapes(FOUR_M).values()
    assert sum(torch.Size(shape).numel() for shape in shapes) == pytest.approx(4.14e6, rel=0.005)


def test_what_may_be_left_out_is_filled_in_as_the_reference_does() -> None:
    fields = {
        "patch_size": 32,
        "d_model": 256,
        "num_heads": 4,
        "num_layers": 4,
        "layer_group_size": 4,
        "num_variate_layers_per_group": 1,
        "variate_layer_first": False,
        "residual_attn_ratio": 6.8,
        "norm_include_weight": True,
    }
    config = Toto2Config.from_official(fields)
    assert (config.d_ff, config.qk_dim, config.v_dim, config.num_groups) == (688, 64, 64, 4)
    assert config.qk_norm_include_weight


def test_fields_that_change_no_forecast_are_passed_over(folder: Path) -> None:
    with_fields(folder, trained_on="a cluster", pre_norm=False)
    assert Toto2Pipeline.from_pretrained(folder).patch_size == TINY.patch_size


@pytest.mark.parametrize("config", [TINY, EVERYTHING])
def test_shards_are_the_model_in_one_file(config: Toto2Config, tmp_path: Path) -> None:
    one = Toto2Pipeline.from_pretrained(save_toto2_model(tmp_path / "one", config))
    several = Toto2Pipeline.from_pretrained(save_toto2_model(tmp_path / "several", config, shards=4))
    series = torch.arange(48.0) % 7
    assert torch.equal(one.predict(series, 20).quantiles, several.predict(series, 20).quantiles)


def test_every_shard_is_part_of_a_models_identity(shards: Path) -> None:
    check_weights(shards)
    before = digest(shards)
    with_weights(shards / "model-00002-of-00003.safetensors", lambda w: next(iter(w.values())).add_(1.0))
    assert digest(shards) != before


def test_weights_in_half_precision_are_read_as_float32(folder: Path) -> None:
    file = folder / "model.safetensors"
    save_file({name: tensor.bfloat16() for name, tensor in load_file(file).items()}, file)
    _, weights = checkpoint.load(folder)
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32}


def test_names_of_a_compiled_or_wrapped_model_are_known(folder: Path) -> None:
    file = folder / "model.safetensors"
    save_file({f"_orig_mod.model.{name}": t.clone() for name, t in load_file(file).items()}, file)
    _, weights = checkpoint.load(folder)
    assert weights.keys() == random_weights(TINY).keys()


def test_a_checkpoint_that_is_overwritten_does_not_change_a_loaded_model(folder: Path) -> None:
    loaded = Toto2Pipeline.from_pretrained(folder)
    series = torch.arange(48.0) % 7
    before = loaded.predict(series, 8).quantiles
    size = (folder / "model.safetensors").stat().st_size
    with (folder / "model.safetensors").open("r+b") as file:
        file.write(b"\0" * size)
    assert torch.equal(loaded.predict(series, 8).quantiles, before)


CONFIGS: dict[str, tuple[dict[str, Any], str]] = {
    "a field that is missing": ({"d_model": "removed"}, "'d_model' is missing"),
    "a switch that is missing": ({"variate_layer_first": "removed"}, "'variate_layer_first' is missing"),
    "a switch that is none": ({"use_xpos": "yes"}, "use_xpos must be true or false"),
    "no number": ({"num_layers": "many"}, "num_layers|invalid literal"),
    "no layers": ({"num_layers": 0}, "num_layers must be from 1"),
    "too many layers": ({"num_layers": 10**9}, "num_layers must be from 1 to 1024"),
    "a width beyond any machine": ({"d_model": 2**40}, "d_model must be from 1 to"),
    "infinite": ({"patch_size": float("inf")}, "config: "),
    "no heads": ({"num_heads": 0}, "num_heads must be from 1"),
    "heads that do not divide": ({"num_heads": 3}, "multiple of num_heads 3"),
    "groups that do not divide": ({"num_groups": 4}, "multiple of num_groups 4"),
    "layers that do not divide": ({"layer_group_size": 3}, "multiple of layer_group_size 3"),
    "more across than there are": ({"num_variate_layers_per_group": 5}, "num_variate_layers_per_group"),
    "heads that cannot be rotated": ({"qk_dim": 6}, "multiple of 4 for rotary"),
    "dropout": ({"dropout_p": 0.1}, "dropout_p must be 0"),
    "several patches at once": ({"num_output_patches": 2}, "num_output_patches must be 1"),
    "another width": ({"d_model": 32}, "does not fit config.json"),
    "another patch": ({"patch_size": 16}, "does not fit config.json"),
    "more layers than weights": ({"num_layers": 4}, r"transformer.layers.2.* and \d+ more missing"),
    "fewer layers than weights": ({"num_layers": 1, "layer_group_size": 1}, "not known"),
}


@pytest.mark.parametrize("what", CONFIGS)
def test_a_configuration_that_cannot_be_run_is_refused_in_one_line(what: str, folder: Path) -> None:
    changes, reason = CONFIGS[what]
    with_fields(folder, **changes)
    with pytest.raises(CheckpointError, match=reason):
        Toto2Pipeline.from_pretrained(folder)
    refusal(folder)


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000, '"' + "x" * 1000])
def test_a_configuration_that_is_no_json_object_is_refused_in_one_line(text: str, folder: Path) -> None:
    (folder / "config.json").write_text(text, encoding="utf-8")
    refusal(folder)


WEIGHTS: dict[str, tuple[Callable[[dict[str, Tensor]], object], str]] = {
    "a tensor that is missing": (lambda w: w.pop(WEIGHT), f"{WEIGHT} missing"),
    "one too many": (lambda w: w.update(strange=torch.zeros(1)), "strange not known"),
    "another shape": (lambda w: w.update({WEIGHT: torch.zeros(2, 2)}), r"is \(2, 2\), not"),
    "whole numbers": (lambda w: w.update({WEIGHT: w[WEIGHT].int()}), "is I32, not floating point"),
    "NaN": (lambda w: w[WEIGHT].fill_(torch.nan), "NaN or infinite"),
}


@pytest.mark.parametrize("what", WEIGHTS)
def test_weights_that_do_not_fit_are_refused_in_one_line(what: str, folder: Path) -> None:
    change, reason = WEIGHTS[what]
    with_weights(folder / "model.safetensors", change)
    with pytest.raises(CheckpointError, match=reason):
        Toto2Pipeline.from_pretrained(folder)
    refusal(folder)


BOMBS = {
    "an empty file": b"",
    "a header longer than the file": struct.pack("<Q", 2**40) + b"{}",
    "a header that is no JSON": struct.pack("<Q", 8) + b"notjson!",
    "a tensor beyond the file": struct.pack("<Q", 80)
    + json.dumps({"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}).encode().ljust(80),
    "a pickle": pickle.dumps({"weights": [1.0]}),
}


@pytest.mark.parametrize("what", BOMBS)
def test_a_file_that_is_no_safetensors_is_refused_in_one_line(what: str, folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(BOMBS[what])
    assert "not a readable safetensors file" in refusal(folder)


def test_a_shard_that_is_missing_is_named(shards: Path) -> None:
    (shards / "model-00002-of-00003.safetensors").unlink()
    assert "has no model-00002-of-00003.safetensors" in refusal(shards)


def test_a_shard_that_is_damaged_is_named(shards: Path) -> None:
    (shards / "model-00003-of-00003.safetensors").write_bytes(b"\0" * 100)
    assert "model-00003-of-00003.safetensors" in refusal(shards)


def test_a_tensor_in_two_shards_is_refused(shards: Path) -> None:
    twice = load_file(shards / "model-00001-of-00003.safetensors")
    with_weights(shards / "model-00002-of-00003.safetensors", lambda w: w.update(twice))
    assert "lies in another file too" in refusal(shards)


@pytest.mark.parametrize("place", ["../elsewhere.safetensors", "/etc/passwd", "weights.bin", "", 7, None])
def test_an_index_that_names_no_file_of_its_folder_is_refused(place: Any, shards: Path) -> None:
    index = {"weight_map": {WEIGHT: place}}
    (shards / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    refusal(shards)


@pytest.mark.parametrize("text", ["", "{}", '{"weight_map": []}', '{"weight_map": {}}'])
def test_an_index_without_a_map_is_refused(text: str, shards: Path) -> None:
    (shards / "model.safetensors.index.json").write_text(text, encoding="utf-8")
    refusal(shards)


def test_a_folder_without_weights_is_refused(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"has no model\.safetensors"):
        locate(str(folder))
