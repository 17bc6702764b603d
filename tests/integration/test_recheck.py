"""Settings that a symbol runs are measured again on the prices as they are now, for real."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from autotuner.commands.recheck import judged
from autotuner.daemon.intake import stored_notes
from autotuner.daemon.situation import notes_of
from autotuner.errors import AutotuneError
from autotuner.figures import Figures
from autotuner.measurement.outcome import Failed
from autotuner.search.profiles import profile
from autotuner.serving.spool import Recheck
from autotuner.store import Promotion, Store
from autotuner.tuning.measuring import prepare
from autotuner.workload import Workload
from tests.support.command import Cli
from tests.support.outcomes import measured, timing
from toto_core.prices.options import PriceSource
from toto_core.settings import RuntimeSettings

pytestmark = pytest.mark.slow

NOW = datetime.now(UTC)
WORKLOAD = Workload()
PREPARED = prepare("AMD", WORKLOAD, prices=PriceSource(), device="cpu")
BF16 = RuntimeSettings(precision="bf16", num_threads=1)


def promotion(profile_name: str = "production") -> Promotion:
    return Promotion(
        symbol="AMD",
        profile=profile_name,
        workload=WORKLOAD,
        environment=PREPARED.subject.environment,
        settings=BF16,
        verdict="first",
        reason="for this test",
        figures=Figures(),
        promoted_at=datetime.now(UTC),
    )


@pytest.fixture
def autotune(tmp_path: Path) -> Cli:
    return Cli(tmp_path)


@pytest.mark.parametrize(("name", "code"), [("production", 0), ("accuracy", 3)])
def test_a_recheck_measures_the_drift_of_what_is_active_and_keeps_what_it_found(
    autotune: Cli, name: str, code: int
) -> None:
    with Store(str(autotune.db)) as store:
        store.promote(promotion(name))
    done = autotune.run("recheck", "AMD", "--json", "--exit-code")

    assert done.returncode == code, done.stderr
    document = json.loads(done.stdout)
    assert document["kept"] is (code == 0)
    assert 0 < document["drift"] < 0.01  # what bf16 moves this model's median
    assert (document["drift"] > document["drift_budget"]) is any(
        "drift" in each for each in document["broken"]
    )
    with Store(str(autotune.db)) as store:
        notes = stored_notes(store.records.telemetry("AMD"), print)
    (kept,) = notes_of(notes, promotion(name), BF16)
    assert isinstance(kept, Recheck)
    assert (kept.series_digest, list(kept.broken)) == (PREPARED.subject.series_digest, document["broken"])


def test_without_anything_promoted_a_recheck_is_one_line(autotune: Cli) -> None:
    missing = autotune.run("recheck", "AMD")
    Store(str(autotune.db)).__exit__(None, None, None)
    empty = autotune.run("recheck", "AMD")

    assert (missing.returncode, empty.returncode) == (1, 1)
    assert "no store yet" in missing.stderr
    assert "nothing is promoted yet" in empty.stderr
    assert len(empty.stderr.strip().splitlines()) == 1


def test_settings_promoted_elsewhere_are_not_rechecked_here(autotune: Cli) -> None:
    elsewhere = replace(PREPARED.subject.environment, torch="9.9")
    with Store(str(autotune.db)) as store:
        store.promote(replace(promotion(), environment=elsewhere))
    done = autotune.run("recheck", "AMD")

    assert done.returncode == 1
    assert "another environment (torch: " in done.stderr


@pytest.mark.parametrize("kind", ["timeout", "crashed", "out_of_memory", "compile_error"])
def test_what_says_nothing_of_accuracy_is_no_verdict(kind: str) -> None:
    with pytest.raises(AutotuneError, match=f"could not be rechecked: {kind}: no luck"):
        judged(promotion(), PREPARED, Failed(kind=kind, detail="no luck"), profile("production"), begun=NOW)


def test_forecasts_beyond_measure_break_a_limit() -> None:
    wanted = profile("production")
    broken = judged(promotion(), PREPARED, Failed(kind="drift_exceeded", detail="nan"), wanted, begun=NOW)
    assert (broken.kept, broken.broken, broken.drift) == (False, ("drift_exceeded: nan",), None)
    good = judged(promotion(), PREPARED, measured(timing(1.0), drift=0.002), wanted, begun=NOW)
    assert (good.kept, good.drift) == (True, 0.002)
