from __future__ import annotations

import json
from pathlib import Path

import pytest

from autotuner.paths import snapshot_path
from autotuner.serving.lookup import lookup
from tests.support.invoking import document, refused, run
from tests.support.promoted_store import EAGER, FAST, digest, measure, outcomes, poison

pytestmark = pytest.mark.usefixtures("no_variables")


class TestDb:
    def test_upgrade_makes_a_store_and_its_snapshot(self, tmp_path: Path) -> None:
        path = tmp_path / "new.db"
        made = document(path, "db", "upgrade")
        assert made["store"] == str(path)
        assert Path(made["snapshot"]).exists()
        assert document(path, "list") == {"symbols": []}

    def test_a_sound_store_has_no_problems(self, place: Path) -> None:
        assert "no problem found" in run(place, "db", "check").stdout
        assert document(place, "db", "check") == {"store": str(place), "problems": []}

    @pytest.mark.parametrize("damage", ["missing", "truncated", "older", "garbage"])
    def test_a_snapshot_out_of_step_is_found_and_mended(self, place: Path, damage: str) -> None:
        snapshot = snapshot_path(str(place))
        old = snapshot.read_bytes()
        run(place, "pin", "AMD", "--mode", "eager")
        damaged = {"truncated": old[:5000], "older": old, "garbage": b"garbage" * 100}
        snapshot.unlink()
        if damage != "missing":
            snapshot.write_bytes(damaged[damage])
        found = run(place, "db", "check")
        assert found.exit_code == 1
        assert "`autotune db upgrade` publishes it again" in found.stdout
        assert len(found.stderr.splitlines()) == 1
        assert run(place, "db", "upgrade").exit_code == 0
        assert run(place, "db", "check").exit_code == 0
        assert lookup("AMD", db=str(place)).settings == EAGER

    def test_an_unreadable_promotion_is_a_problem_also_in_json(self, place: Path) -> None:
        poison(place, "BAD")
        result = run(place, "db", "check", "--json")
        assert result.exit_code == 1
        problems = json.loads(result.stdout)["problems"]
        assert any("`autotune rollback BAD`" in problem for problem in problems)

    def test_a_damaged_page_is_a_problem(self, place: Path) -> None:
        measure(place, outcomes())
        size = place.stat().st_size
        with place.open("r+b") as file:  # the first page, which holds the schema, stays whole
            file.seek(4096)
            file.write(b"\xff" * (size - 4096))
        result = run(place, "db", "check")
        assert result.exit_code == 1
        assert len(result.stderr.splitlines()) == 1

    def test_a_backup_is_a_store_with_the_same_settings(self, place: Path, tmp_path: Path) -> None:
        target = tmp_path / "copy.db"
        assert str(target) in run(place, "db", "backup", str(target)).stdout
        assert document(target, "show", "AMD")["settings"] == FAST.to_dict()

    def test_a_backup_replaces_a_file_only_when_forced(self, place: Path, tmp_path: Path) -> None:
        target = tmp_path / "precious.db"
        target.write_text("precious")
        assert "--force" in refused(run(place, "db", "backup", str(target)), 1)
        assert target.read_text() == "precious"
        assert document(place, "db", "backup", str(target), "--force")["backup"] == str(target)
        assert document(target, "show", "AMD")["settings"] == FAST.to_dict()

    def test_a_backup_never_replaces_the_store(self, place: Path) -> None:
        before = digest(place)
        assert "the store itself" in refused(run(place, "db", "backup", str(place), "--force"), 2)
        assert digest(place) == before
