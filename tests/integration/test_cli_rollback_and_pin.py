from __future__ import annotations

from pathlib import Path

import pytest

from autotuner.serving.lookup import lookup
from autotuner.store import Store
from tests.support.invoking import document, refused, run
from tests.support.promoted_store import FAST, NOW, STEADY, UNREADABLE, digest, poison, promotion, write

pytestmark = pytest.mark.usefixtures("no_variables")


class TestRollback:
    def test_what_was_active_before_is_served_again(self, place: Path) -> None:
        with Store(str(place)) as store:
            store.promote(promotion("AMD", STEADY, minutes=5))
        result = run(place, "rollback", "AMD", "--reason", "slow")
        assert f"took back {STEADY.label}" in result.stdout
        assert f"served here now: {FAST.label} (from: promotion)" in result.stdout
        assert "undo: autotune pin AMD --settings '{" in result.stdout
        assert lookup("AMD", db=str(place)).settings == FAST
        assert document(place, "show", "AMD")["settings"] == FAST.to_dict()

    def test_json_has_what_was_taken_back_and_what_is_active(self, place: Path) -> None:
        back = document(place, "rollback", "--symbol", "AMD")
        assert back["rolled_back"]["settings"] == FAST.to_dict()
        assert back["rolled_back"]["rolled_back_reason"] == "by hand"
        assert back["active"] is None
        assert back["lookup"]["source"] == "default"

    def test_nothing_to_take_back_is_one_line(self, place: Path) -> None:
        assert "nothing to roll back for MSFT" in refused(run(place, "rollback", "MSFT"), 1)

    def test_a_promotion_nobody_can_read_can_be_taken_back(self, place: Path) -> None:
        poison(place, "AMD")
        assert "`autotune rollback AMD`" in refused(run(place, "show", "AMD"), 1)
        result = run(place, "rollback", "AMD")
        assert result.exit_code == 0
        assert "took back unreadable settings" in result.stdout
        assert document(place, "show", "AMD")["settings"] == FAST.to_dict()
        assert run(place, "db", "check").exit_code == 0


class TestPin:
    def test_a_mode_is_pinned_and_let_go_again(self, place: Path) -> None:
        pinned = run(place, "pin", "AMD", "--mode", "default", "--precision", "bf16")
        assert "served here now: default bf16 (from: pin)" in pinned.stdout
        assert "undo: autotune unpin AMD" in pinned.stdout
        assert lookup("AMD", db=str(place)).settings == STEADY.replace(precision="bf16")
        let_go = run(place, "unpin", "AMD")
        assert f"served here now: {FAST.label} (from: promotion)" in let_go.stdout
        assert lookup("AMD", db=str(place)).settings == FAST

    def test_settings_are_pinned_whole(self, place: Path) -> None:
        pinned = document(place, "pin", "AMD", "--settings", FAST.replace(num_threads=1).to_json())
        assert pinned["pinned"] == FAST.replace(num_threads=1).to_dict()
        assert pinned["lookup"]["settings"] == pinned["pinned"]
        assert document(place, "unpin", "AMD")["pinned"] is None

    def test_the_first_pin_makes_the_store(self, tmp_path: Path) -> None:
        path = tmp_path / "new.db"
        assert run(path, "pin", "AMD", "--mode", "eager").exit_code == 0
        assert "what it is pinned to" in refused(run(path, "show", "AMD"), 1)

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (("--mode", "warp"), "compile_mode must be one of eager"),
            (("--mode", "eager", "--precision", "fp8"), "precision must be one of"),
            (("--settings", '{"compile_mode": "warp"}'), "compile_mode must be one of eager"),
            (("--settings", '{"speed": 9}'), "unknown field 'speed'"),
            (("--settings", "{"), "not JSON"),
            (("--settings", "[]"), "one object"),
            (("--mode", "eager", "--settings", "{}"), "either --mode or --settings"),
            (("--settings", "{}", "--precision", "bf16"), "--precision goes with --mode"),
            ((), "either --mode or --settings"),
        ],
    )
    def test_what_is_no_settings_is_bad_usage(
        self, place: Path, arguments: tuple[str, ...], said: str
    ) -> None:
        before = digest(place)
        assert said in refused(run(place, "pin", "AMD", *arguments), 2)
        assert digest(place) == before

    def test_unpinning_what_is_not_pinned_is_one_line(self, place: Path) -> None:
        assert "AMD is not pinned" in refused(run(place, "unpin", "AMD"), 1)

    def test_a_pin_nobody_can_read_can_be_let_go(self, place: Path) -> None:
        write(
            place,
            "INSERT INTO pins (symbol, settings_key, settings_json, reason, pinned_at) VALUES (?, ?, ?, ?, ?)",
            *("AMD", "warp", UNREADABLE, "", NOW.isoformat()),
        )
        assert "unreadable" in run(place, "show", "AMD").stdout
        assert "`autotune unpin AMD`" in run(place, "db", "check").stdout
        assert "unreadable settings" in run(place, "unpin", "AMD").stdout
        run(place, "db", "upgrade")
        assert run(place, "db", "check").exit_code == 0
