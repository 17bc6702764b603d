"""What fuzzing has found, each in its smallest form; and every target on its seeds and some mutations of them."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import random
import struct
import zipfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sqlalchemy.engine.default import DefaultDialect

from autotuner import paths
from autotuner.daemon.config import read_config
from autotuner.daemon.service_manager import watchdog_seconds
from autotuner.environment import Environment, current_environment
from autotuner.errors import AutotuneError, UsageError
from autotuner.serving.manifest import MANIFEST, Damaged, link_verified
from autotuner.workload import Workload, read_workload
from storage.checks import time_fault
from storage.errors import SnapshotError, StorageError, StoreUnavailable
from storage.models import UtcTime
from storage.snapshot import read_snapshot
from tests.faults.fuzzing.target import HANGS_AFTER_S, NAMES, put_through, target
from tests.faults.fuzzing.targets import snapshots
from tests.support.invoking import refused, run
from tests.support.tiny_model import save_tiny_model
from toto_core import compile_config
from toto_core.compile_report import CompileReport
from toto_core.model_folder import CONFIG_FILE, INDEX_FILE, WEIGHTS_FILE, CheckpointError, weight_files
from toto_core.prices import parquet
from toto_core.prices.options import SeriesError
from toto_core.prices.reading import read_prices
from toto_core.settings import RuntimeSettings, SettingsError
from toto_core.symbols import SymbolError, symbol_of_stem
from toto_core.toto1 import checkpoint

SLOW = {
    "bundles": 15,
    "http": 12,
    "notes": 4,
    "rows": 6,
    "containers": 60,
    "manifests": 60,
    "configuration": 60,
}
"""How many mutations of a target take as long as 200 of the others: these start or fill a store, or write files."""


@pytest.mark.parametrize("name", NAMES)
def test_seeds_and_some_mutations_are_answered_as_they_must_be(name: str) -> None:
    chosen, chance = target(name), random.Random(name)
    seeds = chosen.seeds()
    for seed in seeds if name != "rows" else chance.sample(seeds, 6):
        put_through(chosen, seed, bounded=False)
    for _ in range(SLOW.get(name, 200)):
        put_through(chosen, chosen.mutated(chance.choice(seeds), chance))


@pytest.mark.parametrize(
    "kind", [AutotuneError, StorageError, CheckpointError, SeriesError, SettingsError, SymbolError]
)
def test_a_message_is_one_printable_line_of_bounded_length_whatever_it_quotes(kind: type[Exception]) -> None:
    said = str(kind(f"begin {'x' * 10_000} end"))
    assert (len(said), said[:6], said[-4:]) == (2_000, "begin ", " end")
    assert str(kind("a\n\x1b[2J\u202e b")) == "a \\x1b[2J\\u202e b"


def parquet_of(columns: dict[str, list[Any]]) -> bytes:
    written = io.BytesIO()
    pq.write_table(pa.table(columns), written)
    return written.getvalue()


class TestPaths:
    def test_a_store_cannot_be_the_root_or_a_folder_without_a_name(self) -> None:
        for address in ("/", ".", "sqlite:////", "file:/"):
            with pytest.raises(StoreUnavailable, match="no file name"):
                paths.snapshot_path(address)

    @pytest.mark.parametrize(
        "address", ["sqlite:///%22a%22", "\"'a.db'\"", "sqlite:////srv/a%20", "file:/srv/a%20"]
    )
    def test_a_location_is_read_as_itself(self, address: str) -> None:
        location = paths.store_location(address, {})
        assert paths.store_location(location, {}) == location
        assert paths.store_path(location) == paths.store_path(address)

    def test_a_cache_in_nobodys_home_is_refused_in_one_line(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AUTOTUNE_CACHE", "~nobody-by-this-name/x")
        with pytest.raises(UsageError, match="AUTOTUNE_CACHE"):
            paths.cache_folder()
        monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
        compile_config.get_recommended_settings()
        assert "~nobody" in compile_config._wanted(os.environ)["TORCHINDUCTOR_CACHE_DIR"]


class TestFiles:
    @pytest.mark.parametrize(
        "text", ["a = " + "[" * 5_000, f"concurrency = {'9' * 5_000}"], ids=["deep", "digits"]
    )
    def test_toml_that_python_cannot_hold_is_refused_in_one_line(self, tmp_path: Path, text: str) -> None:
        path = tmp_path / "a.toml"
        path.write_text(text, encoding="utf-8")
        with pytest.raises(UsageError, match=r"a\.toml"):
            read_workload(path)
        with pytest.raises(UsageError, match=r"a\.toml"):
            read_config(path)

    def test_a_zip_archive_that_lies_about_its_own_places_is_refused(self) -> None:
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            archive.writestr("AMD.csv", "timestamp,close\n2024-01-01,10\n")
        lying = bytearray(packed.getvalue())
        begin = lying.rindex(b"PK\x05\x06")
        struct.pack_into("<I", lying, begin + 12, len(lying) + 9)
        with pytest.raises(SeriesError, match="not a sound zip archive"):
            read_prices(bytes(lying), "AMD", "X")
        with pytest.raises(SeriesError, match="zip archive of 0 files"):
            read_prices(b"PK\x05\x06" + bytes(18), "AMD", "X")

    def test_one_column_that_could_be_the_time_and_the_price_is_refused(self) -> None:
        with pytest.raises(SeriesError):
            read_prices(b"106100,040610", "AMD", "X")

    def test_a_parquet_file_of_more_rows_than_memory_holds_is_refused(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(parquet, "MOST_ROWS", 2)
        with pytest.raises(SeriesError, match="says it holds 3 rows"):
            read_prices(parquet_of({"timestamp": ["2024-01-01"] * 3, "close": [1.0] * 3}), "AMD", "X")

    def test_a_column_that_python_cannot_parse_has_its_name(self) -> None:
        deep = "(" + "-" * 100_000 + "1, 2)"
        content = parquet_of({"timestamp": ["2024-01-01"], "close": [1.0], deep: [1]})
        assert read_prices(content, "AMD", "X").close.tolist() == [1.0]

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("\n" * 30 + "Date;Close\n2024-01-01;10\n", "line 21: is blank"),
            ("Price,Close,High\nTicker,AMD,AMD,AMD,AMD\nDate,,\n2024-01-01,10,11\n", "line 2: has 5 fields"),
        ],
        ids=["blank lines", "headers of two lengths"],
    )
    def test_a_header_that_is_not_there_or_ragged_is_refused(self, text: str, said: str) -> None:
        with pytest.raises(SeriesError, match=said):
            read_prices(text.encode(), "AMD", "X")

    def test_a_manifest_with_a_name_that_no_file_has_is_damaged(self, tmp_path: Path) -> None:
        folder = tmp_path / "stored"
        folder.mkdir(mode=0o700)
        name = "x" * 300 + "/a"
        listed = {"format": 1, "files": {name: {"sha256": "0", "bytes": 1}}}
        (folder / MANIFEST).write_text(json.dumps(listed), encoding="utf-8")
        (folder / MANIFEST).chmod(0o600)
        with pytest.raises(Damaged, match="cannot be read"):
            link_verified(folder, tmp_path / "into")

    def test_a_stem_that_encodes_no_text_is_no_symbol(self) -> None:
        with pytest.raises(SymbolError, match="not a symbol"):
            symbol_of_stem("%99")


class TestSettings:
    def test_a_knob_holds_printable_text_alone(self) -> None:
        with pytest.raises(SettingsError, match="printable"):
            RuntimeSettings(knobs=(("kernel", "a\x1b[2J"),))

    @pytest.mark.parametrize(
        "fields", [{"model": "a\tb"}, {"model": "x" * 4_097}, {"revision": "\x1b"}, {"revision": {}}]
    )
    def test_a_workload_names_its_model_in_printable_text(self, fields: dict[str, str]) -> None:
        with pytest.raises(UsageError, match="printable"):
            Workload(**fields)  # type: ignore[arg-type] # texts alone

    def test_a_workload_of_many_shapes_is_summed_up_in_a_line_that_can_be_read(self) -> None:
        (shape,) = Workload().shapes
        assert Workload(shapes=(shape,) * 256).summary.endswith("; and 248 more")
        with pytest.raises(UsageError, match="at most 256"):
            Workload(shapes=(shape,) * 257)

    def test_a_warning_about_a_variable_is_one_printable_line(self) -> None:
        with pytest.warns(UserWarning, match="is ignored") as warned:
            compile_config.settings_from_environment(
                {"TOTO_COMPILE_MODE": "a\x1b[2J", "TOTO_COMPILE_BACKEND": "b\n"}
            )
        assert all(str(each.message).isprintable() for each in warned)

    def test_a_watchdog_of_400_digits_is_none(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("WATCHDOG_USEC", "9" * 400)
        assert watchdog_seconds() is None


@pytest.mark.parametrize(
    "document",
    [
        b"\xff",
        b"[",
        b"[" * 100_000,
        b"9" * 5_000,
        b"[]",
        b"{}",
        b'{"entries": 5}',
        b'{"entries": [[]], "pins": [], "texts": []}',
        b'{"entries": [], "pins": [], "texts": [], "written_at": 5}',
        b'{"entries": [], "pins": [], "texts": [], "written_at": "soon"}',
    ],
    ids=range(10),
)
def test_a_right_digest_over_another_document_is_a_corrupt_snapshot(tmp_path: Path, document: bytes) -> None:
    path = tmp_path / "autotune.snapshot.db"
    snapshots.write(path, document)
    with pytest.raises(SnapshotError) as refused:
        read_snapshot(path)
    assert refused.value.reason == "truncated/corrupt"


def test_a_stored_time_that_utc_has_not_is_damage_of_its_row() -> None:
    read = UtcTime().process_result_value("9999-12-31T23:59:59-23:59", DefaultDialect())
    assert "give a datetime" in time_fault("since", read)


@pytest.mark.parametrize(
    "changes",
    [
        {"graphs": "x"},
        {"graphs": True},
        {"requested": 1},
        {"compile_seconds": 10**400},
        {"cudagraph_skips": "ab"},
    ],
    ids=str,
)
def test_a_compile_report_of_other_kinds_is_none(changes: dict[str, Any]) -> None:
    whole = CompileReport(requested=True, graphs=2, cudagraph_skips=("a",), compile_seconds=1.5)
    assert CompileReport.from_dict(whole.to_dict()) == whole
    with pytest.raises(ValueError, match="compile report"):
        CompileReport.from_dict(whole.to_dict() | changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"engine": 5},
        {"torch": None},
        {"isa": "a\0"},
        {"driver": "\x1b[2J"},
        {"threads": "2"},
        {"threads": True},
    ],
    ids=str,
)
def test_a_bundle_whose_environment_is_of_other_kinds_is_refused(
    changes: dict[str, Any], tmp_path: Path
) -> None:
    facts = dataclasses.asdict(current_environment()) | changes
    with pytest.raises(TypeError, match=f"{next(iter(changes))} must be"):
        Environment.from_dict(facts)
    (seed, _) = target("bundles").seeds()
    document = json.loads(seed)
    document["environments"][0] |= {"facts": facts, "fingerprint": Environment(**facts).fingerprint}
    for promotion in document["promotions"]:
        promotion["environment_fingerprint"] = document["environments"][0]["fingerprint"]
    said = refused(run(tmp_path / "a.db", "import", "-", stdin=json.dumps(document)), 1)
    assert "environments[0]: facts are refused" in said


class TestModels:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        save_tiny_model(tmp_path)
        return tmp_path

    @pytest.mark.timeout(HANGS_AFTER_S)
    @pytest.mark.parametrize("name", ["num_layers", "embed_dim", "mlp_hidden_dim", "patch_size"])
    def test_a_size_that_no_model_has_is_refused_before_anything_is_made(
        self, folder: Path, name: str
    ) -> None:
        config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
        config |= {name: 10**9} | ({"stride": 10**9} if name == "patch_size" else {})
        (folder / CONFIG_FILE).write_text(json.dumps(config), encoding="utf-8")
        with pytest.raises(CheckpointError, match=f"{name} must be from 1 to"):
            checkpoint.load(folder)

    @pytest.mark.parametrize(
        ("name", "value"), [("dropout", -1), ("dropout", "nan"), ("scale_factor_exponent", "inf")]
    )
    def test_a_number_that_no_layer_takes_is_refused(self, folder: Path, name: str, value: object) -> None:
        config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
        (folder / CONFIG_FILE).write_text(json.dumps(config | {name: value}), encoding="utf-8")
        with pytest.raises(CheckpointError, match=f"{name} must be"):
            checkpoint.load(folder)

    def test_a_shard_with_a_name_that_no_file_has_is_refused(self, folder: Path) -> None:
        (folder / WEIGHTS_FILE).unlink()
        places = {"weight_map": {"a": "x" * 300 + ".safetensors"}}
        (folder / INDEX_FILE).write_text(json.dumps(places), encoding="utf-8")
        with pytest.raises(CheckpointError, match="no safetensors file of this folder"):
            weight_files(folder)

    def test_weights_that_are_whole_numbers_are_refused(self, folder: Path) -> None:
        whole = (folder / WEIGHTS_FILE).read_bytes().replace(b'"F32"', b'"I32"')
        (folder / WEIGHTS_FILE).write_bytes(whole)
        with pytest.raises(CheckpointError, match="not floating point"):
            checkpoint.load(folder)


def test_a_client_that_hangs_up_within_a_form_leaves_no_traceback() -> None:
    http = target("http")
    http.one(b"POST /login HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n\r\ntoken=")
