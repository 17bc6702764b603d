from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from autotuner.daemon.units import service_unit, timer_units
from autotuner.errors import UsageError

VERIFY = shutil.which("systemd-analyze")
DEPLOY = Path(__file__).parents[2] / "deploy"


def verify(units: dict[str, str], folder: Path) -> str:
    """What ``systemd-analyze verify`` objects to."""
    if VERIFY is None:
        pytest.skip("needs systemd-analyze")
    for name, text in units.items():
        (folder / name).write_text(text)
    done = subprocess.run(
        [VERIFY, "verify", "--man=no", *(str(folder / name) for name in units)],
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
    )
    return "\n".join(line for line in done.stderr.splitlines() if str(folder) in line or "autotune" in line)


def test_systemd_finds_nothing_wrong_with_the_service(tmp_path: Path) -> None:
    units = service_unit(
        executable=Path(sys.executable),
        store="/srv/100%/a$b.db",
        config=Path("/etc/a b.toml"),
        cache="/srv/cache",
        label="rack-2",
    )

    assert verify(units, tmp_path) == ""
    text = units["autotune.service"]
    assert '--config "/etc/a b.toml" --db "/srv/100%%/a$$b.db"' in text
    assert "WatchdogSec" in text
    assert (
        'Environment="AUTOTUNE_CACHE=/srv/cache"\nEnvironment="AUTOTUNE_ENVIRONMENT_LABEL=rack-2"\n' in text
    )


def test_systemd_finds_nothing_wrong_with_the_timer(tmp_path: Path) -> None:
    units = timer_units(executable=Path(sys.executable), store=None, config=None, calendar="Mon..Fri 22:00")

    assert verify(units, tmp_path) == ""
    assert set(units) == {"autotune-tick.service", "autotune-tick.timer"}


def test_systemd_finds_nothing_wrong_with_the_unit_that_is_shipped(tmp_path: Path) -> None:
    shipped = (DEPLOY / "autotune.service").read_text()

    assert verify({"autotune.service": shipped}, tmp_path) == ""


@pytest.mark.parametrize("text", ["", "  ", "daily\nExecStart=/bin/evil"])
def test_a_calendar_of_several_lines_never_reaches_a_unit(text: str) -> None:
    with pytest.raises(UsageError, match="one line"):
        timer_units(executable=Path("/bin/true"), store=None, config=None, calendar=text)


def test_a_name_with_control_characters_never_reaches_a_unit() -> None:
    with pytest.raises(UsageError, match="control characters"):
        service_unit(executable=Path("/bin/true\nExecStart=/bin/evil"), store=None, config=None)
