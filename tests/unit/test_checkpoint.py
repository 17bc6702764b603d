from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.support.golden import golden_case, write_official_folder
from toto_core.model_files import CheckpointError, locate
from toto_core.toto1 import checkpoint

CASE = "grouped_padded"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_official_folder(CASE, tmp_path / "model")


def refusal(folder: Path) -> str:
    with pytest.raises(CheckpointError) as refused:
        checkpoint.load(locate(str(folder)))
    assert "\n" not in str(refused.value)
    assert str(folder) in str(refused.value)
    return str(refused.value)


def test_an_official_folder_is_loaded_ready_for_inference(folder: Path) -> None:
    model = checkpoint.load(locate(str(folder)))
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    expected = golden_case(CASE).model.state_dict()
    assert model.state_dict().keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in model.state_dict().items())


def test_saving_gives_back_the_official_names_and_the_very_same_bytes(folder: Path, tmp_path: Path) -> None:
    checkpoint.save(checkpoint.load(locate(str(folder))), tmp_path / "new" / "copy")

    original = load_file(folder / "model.safetensors")
    saved = load_file(tmp_path / "new" / "copy" / "model.safetensors")
    assert saved.keys() == original.keys()
    for name, tensor in original.items():
        assert saved[name].dtype == tensor.dtype
        assert saved[name].numpy().tobytes() == tensor.numpy().tobytes(), name
    written = json.loads((tmp_path / "new" / "copy" / "config.json").read_text(encoding="utf-8"))
    read = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert written == read


def test_a_model_can_be_saved_over_the_files_it_was_loaded_from(folder: Path) -> None:
    before = (folder / "model.safetensors").read_bytes()
    for _ in range(2):
        checkpoint.save(checkpoint.load(locate(str(folder))), folder)
    loaded = checkpoint.load(locate(str(folder))).state_dict()
    expected = golden_case(CASE).model.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in loaded.items())
    assert len((folder / "model.safetensors").read_bytes()) == pytest.approx(len(before), rel=0.01)


def test_a_loaded_model_does_not_need_its_file_any_more(folder: Path) -> None:
    model = checkpoint.load(locate(str(folder)))
    (folder / "model.safetensors").write_bytes(b"")
    expected = golden_case(CASE).model.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in model.state_dict().items())


def test_the_names_of_a_fused_swiglu_are_accepted(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    fused = {
        name.replace("mlp.0.", "mlp.0.w12.").replace("mlp.2.", "mlp.0.w3."): tensor
        for name, tensor in weights.items()
    }
    assert fused.keys() != weights.keys()
    save_file(fused, folder / "model.safetensors")

    loaded = checkpoint.load(locate(str(folder))).state_dict()
    expected = golden_case(CASE).model.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in loaded.items())


def test_the_rotary_constants_of_older_checkpoints_are_ignored(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    constants = {"model.transformer.rotary_emb.freqs": torch.ones(8)}
    save_file(weights | constants, folder / "model.safetensors")
    assert (
        checkpoint.load(locate(str(folder))).state_dict().keys()
        == golden_case(CASE).model.state_dict().keys()
    )


def test_half_precision_weights_are_loaded_in_float32(folder: Path) -> None:
    weights = {name: t.bfloat16() for name, t in load_file(folder / "model.safetensors").items()}
    save_file(weights, folder / "model.safetensors")
    loaded = checkpoint.load(locate(str(folder))).state_dict()
    assert {tensor.dtype for tensor in loaded.values()} == {torch.float32}


def test_a_pickle_under_the_name_of_safetensors_is_refused_unread(folder: Path, tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (Path(tmp_path / "sprung"),))  # type: ignore[return-value]

    (folder / "model.safetensors").write_bytes(pickle.dumps(Trap()))
    assert "not a readable safetensors file" in refusal(folder)
    assert not (tmp_path / "sprung").exists()


def test_a_torch_file_under_the_name_of_safetensors_is_refused(folder: Path) -> None:
    torch.save({"weight": torch.ones(2000)}, folder / "model.safetensors")
    assert "not a readable safetensors file" in refusal(folder)


@pytest.mark.parametrize("length", [0, 7, 100, 50_000, -1])
def test_truncated_weights_are_refused(folder: Path, length: int) -> None:
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:length])
    assert "not a readable safetensors file" in refusal(folder)


@pytest.mark.parametrize(
    "change",
    [
        {"num_layers": 8},
        {"num_layers": 2},
        {"embed_dim": 32},
        {"embed_dim": 128},
        {"mlp_hidden_dim": 64},
        {"output_distribution_kwargs": {"k_components": 24}},
        {"patch_size": 32, "stride": 32},
    ],
)
def test_weights_that_do_not_fit_the_configuration_are_refused(
    folder: Path, change: dict[str, object]
) -> None:
    fields = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(fields | change), encoding="utf-8")
    assert "does not fit config.json" in refusal(folder)


@pytest.mark.parametrize("prefix", ["_orig_mod.model.", "module.model.", "module._orig_mod.model.", ""])
def test_the_prefixes_of_compiled_and_distributed_models_are_read(folder: Path, prefix: str) -> None:
    expected = checkpoint.load(folder).state_dict()
    weights = load_file(folder / "model.safetensors")
    renamed = {prefix + name.removeprefix("model."): tensor for name, tensor in weights.items()}
    save_file(renamed, folder / "model.safetensors")
    found = checkpoint.load(folder).state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(folder: Path, value: float) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["model.transformer.layers.2.norm1.scale"][0] = value
    save_file(weights, folder / "model.safetensors")
    assert "model.transformer.layers.2.norm1.scale holds NaN or infinite weights" in refusal(folder)


def test_a_missing_tensor_is_named(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["model.transformer.layers.2.norm1.scale"]
    save_file(weights, folder / "model.safetensors")
    assert "transformer.layers.2.norm1.scale" in refusal(folder)


def test_an_unknown_tensor_is_named(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    save_file(weights | {"model.surprise": torch.ones(1)}, folder / "model.safetensors")
    assert "surprise" in refusal(folder)


def test_the_shipped_model_loads_and_has_fewer_than_four_million_parameters() -> None:
    model = checkpoint.load(locate("toto-mini"))
    assert model.config.patch_size == 32
    assert 1_000_000 < sum(parameter.numel() for parameter in model.parameters()) <= 4_000_000
