"""Folders of models: configurations, headers of safetensors and indexes of shards that lie; one line, and no memory.

An input is three files: ``config.json``, the index (empty: none), and the weights.
"""

from __future__ import annotations

import functools
import json
import random
import struct
from pathlib import Path
from typing import Any

from autotuner.engines.registry import claiming
from tests.faults.fuzzing import json_mutation, mutation, scratch
from tests.faults.fuzzing.verdicts import check, refused_with
from tests.support.tiny_model import save_tiny_model
from tests.support.toto2_model import save_toto2_model
from toto_core.model_files import digest
from toto_core.model_folder import CONFIG_FILE, INDEX_FILE, WEIGHTS_FILE, CheckpointError

SECONDS = 3.0
_SHARD = "model-00001-of-00001.safetensors"


@functools.cache
def seeds() -> tuple[bytes, ...]:
    first, second = scratch.folder("models-seed/toto1"), scratch.folder("models-seed/toto2")
    save_tiny_model(first)
    save_toto2_model(second)
    found = [_input(folder, b"") for folder in (first, second)]
    header, _ = _split((second / WEIGHTS_FILE).read_bytes())
    places = dict.fromkeys((name for name in header if name != "__metadata__"), _SHARD)
    return (
        *found,
        _input(second, json.dumps({"metadata": {"total_size": 1}, "weight_map": places}).encode()),
    )


def mutated(data: bytes, chance: random.Random) -> bytes:
    index = json_mutation.document if mutation.parts_of(data, 3)[1] else _same
    return mutation.in_one_part(data, chance, (json_mutation.document, index, _weights))


def one(data: bytes) -> None:
    from toto_core.toto1 import checkpoint as toto1
    from toto_core.toto2 import checkpoint as toto2

    config, index, weights = mutation.parts_of(data, 3)
    folder = scratch.empty_folder("models")
    (folder / CONFIG_FILE).write_bytes(config)
    if index:
        (folder / INDEX_FILE).write_bytes(index)
    (folder / (_SHARD if index else WEIGHTS_FILE)).write_bytes(weights)
    with refused_with(CheckpointError):
        engine = claiming(folder)
        identity = engine.identity(str(folder))
        check(identity.digest == digest(folder), "its digest is that of its files")
        check(identity.patch_size > 0, f"a patch of {identity.patch_size}")
    with refused_with(CheckpointError):
        toto1.load(folder)
    with refused_with(CheckpointError):
        toto2.load(folder)


def _input(folder: Path, index: bytes) -> bytes:
    return mutation.joined((folder / CONFIG_FILE).read_bytes(), index, (folder / WEIGHTS_FILE).read_bytes())


def _same(data: bytes, _chance: random.Random) -> bytes:
    return data


def _split(weights: bytes) -> tuple[dict[str, object], bytes]:
    """The header and the bytes behind it. Raises ``ValueError``, ``struct.error`` for none."""
    (length,) = struct.unpack("<Q", weights[:8])
    header = json.loads(weights[8 : 8 + length])
    if not isinstance(header, dict):
        raise ValueError("a header is an object")
    return header, weights[8 + length :]


_LIES: tuple[dict[str, Any], ...] = (
    *(
        {"dtype": kind}
        for kind in (
            "I32",
            "U32",
            "F8_E4M3",
            "F8_E5M2",
            "BOOL",
            "I64",
            "U8",
            "C64",
            "F64",
            "BF16",
            "F16",
            "F4",
        )
    ),
    *({"shape": shape} for shape in ([], [0], [-1], [2**62, 4], [2**40], [1] * 200, [2.0], ["2"], None)),
    *(
        {"data_offsets": place}
        for place in ([0, 0], [0, 8], [8, 0], [0, 2**63], [-8, 8], [2**64, 2**64 + 8], [0])
    ),
)


def _weights(weights: bytes, chance: random.Random) -> bytes:
    """The header changed in its form under a length that fits, or any bytes."""
    if chance.random() < 0.3:
        return mutation.any_bytes(weights, chance)
    try:
        header, rest = _split(weights)
    except (ValueError, struct.error, RecursionError):
        return mutation.any_bytes(weights, chance)
    tensor = header.get(chance.choice(list(header))) if header else None
    if isinstance(tensor, dict) and chance.random() < 0.4:
        tensor |= chance.choice(_LIES)
        text = json.dumps(header).encode()
        return struct.pack("<Q", len(text)) + text + rest
    text = json_mutation.rendered(json_mutation.changed(header, chance)).encode("utf-8", "surrogatepass")
    length = len(text) if chance.random() < 0.95 else chance.choice((0, 2**63, 2**64 - 1, 100_000_001))
    return struct.pack("<Q", length) + text + rest
