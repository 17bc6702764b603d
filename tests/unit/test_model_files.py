from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.golden import write_official_folder
from toto_core.model_files import CheckpointError, digest, locate, read_config
from toto_core.model_folder import ConfigError
from toto_core.toto1.model_config import ModelConfig

HUB_ID = "Datadog/Toto-Open-Base-1.0"
LOCATE = """
import json, sys, time
from toto_core.model_files import CheckpointError, locate
import huggingface_hub  # its import is not what is timed
started = time.monotonic()
try:
    answer = str(locate(sys.argv[1]))
except CheckpointError as error:
    answer = f"error: {error}"
print(json.dumps([answer, time.monotonic() - started]))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_official_folder("constant", tmp_path / "model")


def locate_in_another_process(name: str, **variables: str) -> tuple[str, float]:
    """What ``locate`` says of a hub id, and in how many seconds; the hub's client reads variables once."""
    kept = {key: value for key, value in os.environ.items() if "PROXY" not in key.upper()}
    finished = subprocess.run(
        [sys.executable, "-c", LOCATE, name],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
        env=kept | variables,
    )
    answer, seconds = json.loads(finished.stdout)
    return str(answer), float(seconds)


def test_the_embedded_model_is_found_by_its_name() -> None:
    found = locate("toto-mini")
    assert read_config(found).patch_size == 32
    assert (found / "model.safetensors").is_file()


def test_a_folder_is_used_where_it_is(folder: Path) -> None:
    assert locate(str(folder)) == folder


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
def test_a_folder_without_one_of_its_files_is_refused_by_name(folder: Path, missing: str) -> None:
    (folder / missing).unlink()
    with pytest.raises(CheckpointError, match=f"has no {missing}"):
        locate(str(folder))


@pytest.mark.parametrize(
    "name",
    [
        "/no/such/folder",
        "./nothing",
        "nothing",
        "a/b/c",
        "~/no-such-model-folder",
        "~no-such-user/model",
        "a\0b",
    ],
)
def test_a_missing_folder_is_refused_at_once_in_one_line(name: str) -> None:
    started = time.monotonic()
    with pytest.raises(CheckpointError, match="no such model folder") as refused:
        locate(name)
    assert time.monotonic() - started < 1.0
    assert "\n" not in str(refused.value)
    assert "toto-mini" in str(refused.value)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"{", "cannot be read as JSON"),
        (b"", "cannot be read as JSON"),
        (b"\xff\xfe{", "cannot be read as JSON"),
        (b"[" * 100_000, "cannot be read as JSON"),
        (b"[1, 2]", "must hold one JSON object"),
        (b"{}", "'patch_size' is missing"),
    ],
)
def test_a_broken_configuration_is_refused_in_one_line(folder: Path, content: bytes, reason: str) -> None:
    (folder / "config.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=reason) as refused:
        read_config(folder)
    assert "\n" not in str(refused.value)
    assert str(folder / "config.json") in str(refused.value)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"num_heads": 0}, "num_heads must be from 1 to 1024"),
        ({"num_heads": 3}, "embed_dim 32 must be a multiple of twice num_heads 3"),
        ({"num_layers": 6}, "must be a multiple of spacewise_every_n_layers"),
        ({"stride": 8}, "stride must equal patch_size"),
        ({"scaler_cls": "<class 'model.scaler.StdMeanScaler'>"}, "scaler_cls"),
        ({"output_distribution_classes": ["<class 'model.distribution.StudentTOutput'>"]}, "mixture"),
        ({"output_distribution_kwargs": None}, "'k_components' is missing"),
        ({"patch_size": "wide"}, "invalid literal"),
        ({"patch_size": None}, "int"),
        ({"patch_size": float("inf")}, "infinity"),
    ],
)
def test_an_architecture_that_cannot_be_run_is_refused(
    folder: Path, change: dict[str, Any], reason: str
) -> None:
    fields = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(fields | change), encoding="utf-8")
    with pytest.raises(CheckpointError, match=reason) as refused:
        read_config(folder)
    assert "\n" not in str(refused.value)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
OFFICIAL = ModelConfig(
    patch_size=16,
    embed_dim=32,
    num_layers=4,
    num_heads=4,
    mlp_hidden_dim=64,
    spacewise_every_n_layers=4,
    k_components=3,
).to_official()


@given(st.dictionaries(st.sampled_from(sorted(OFFICIAL)), json_values, max_size=3))
def test_any_values_in_a_configuration_are_read_or_refused(change: dict[str, Any]) -> None:
    try:
        config = ModelConfig.from_official(OFFICIAL | change)
    except ConfigError:
        return
    assert ModelConfig.from_official(config.to_official()) == config


@pytest.mark.parametrize(
    ("every", "first", "axes"),
    [
        (4, False, "time time time space"),
        (4, True, "space time time time"),
        (2, False, "time space time space"),
        (2, True, "space time space time"),
        (1, False, "space space space space"),
        (-1, False, "time time time time"),
    ],
)
def test_layers_run_over_time_and_space_in_the_official_order(every: int, first: bool, axes: str) -> None:
    fields = OFFICIAL | {"spacewise_every_n_layers": every, "spacewise_first": first}
    assert " ".join(ModelConfig.from_official(fields).layer_axes) == axes


def test_the_digest_is_of_both_files_and_not_of_their_place(folder: Path, tmp_path: Path) -> None:
    first = digest(folder)
    parts = (hashlib.sha256((folder / name).read_bytes()) for name in ("config.json", "model.safetensors"))
    assert first == hashlib.sha256(b"".join(part.digest() for part in parts)).hexdigest()
    assert digest(write_official_folder("constant", tmp_path / "elsewhere")) == first

    with (folder / "config.json").open("a", encoding="utf-8") as file:
        file.write(" ")
    assert digest(folder) != first


def test_the_digest_of_a_missing_file_is_refused(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="cannot be read"):
        digest(folder)


@pytest.mark.parametrize("endpoint", ["https://127.0.0.1:9", "https://hub.invalid"])
def test_a_hub_that_cannot_be_reached_is_reported_within_five_seconds(tmp_path: Path, endpoint: str) -> None:
    answer, seconds = locate_in_another_process(
        HUB_ID, HF_ENDPOINT=endpoint, HF_HOME=str(tmp_path), HF_HUB_OFFLINE="0"
    )
    assert answer.startswith(f"error: {HUB_ID}: ")
    assert "cannot be reached" in answer
    assert "\n" not in answer
    assert seconds < 5.0


def test_an_offline_hub_is_not_even_asked(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as hub:
        endpoint = f"http://127.0.0.1:{hub.getsockname()[1]}"
        answer, _ = locate_in_another_process(
            HUB_ID, HF_ENDPOINT=endpoint, HF_HOME=str(tmp_path), HF_HUB_OFFLINE="1"
        )
        hub.setblocking(False)
        with pytest.raises(BlockingIOError):
            hub.accept()
    assert answer.startswith(f"error: {HUB_ID}: not in the local hub cache")
    assert "HF_HUB_OFFLINE" in answer
    assert "\n" not in answer


def test_a_downloaded_model_is_found_offline_in_the_hubs_cache(tmp_path: Path) -> None:
    repository = tmp_path / "hub" / "models--Datadog--Toto-Open-Base-1.0"
    snapshot = write_official_folder("constant", repository / "snapshots" / ("a" * 40))
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("a" * 40, encoding="utf-8")

    answer, _ = locate_in_another_process(HUB_ID, HF_HOME=str(tmp_path), HF_HUB_OFFLINE="1")

    assert Path(answer).resolve() == snapshot.resolve()


def test_a_hub_id_that_is_none_is_refused() -> None:
    with pytest.raises(CheckpointError, match="not a hub id") as refused:
        locate("some one/some--model")
    assert "\n" not in str(refused.value)
