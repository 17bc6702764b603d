"""systemd units: the daemon as a service, or a timer that ticks once; both harden what they start."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from autotuner.errors import UsageError

_HARDENING = """\
NoNewPrivileges=yes
PrivateTmp=yes
ProtectSystem=full
ProtectKernelTunables=yes
ProtectControlGroups=yes
RestrictSUIDSGID=yes
UMask=0077
Nice=10
"""


@dataclass(frozen=True, kw_only=True)
class Units:
    """File name to text."""

    files: dict[str, str]


def service_unit(*, executable: Path, store: str | None, config: Path | None) -> Units:
    """``autotune.service``: the daemon, started at boot, watched, restarted when it fails."""
    return Units(
        files={
            "autotune.service": (
                "[Unit]\n"
                "Description=autotune: keeps the fastest safe settings of Toto forecasts\n"
                "Documentation=man:systemd.service(5)\n"
                "After=network.target\n\n"
                "[Service]\n"
                "Type=notify\n"
                "NotifyAccess=main\n"
                f"ExecStart={_command(executable, 'daemon', store, config)}\n"
                "ExecReload=/bin/kill -HUP $MAINPID\n"
                "Restart=on-failure\n"
                "RestartSec=30\n"
                "WatchdogSec=120\n"
                "TimeoutStopSec=15\n"
                f"{_HARDENING}\n"
                "[Install]\n"
                "WantedBy=default.target\n"
            )
        }
    )


def timer_units(*, executable: Path, store: str | None, config: Path | None, calendar: str) -> Units:
    """``autotune-tick.service`` and ``autotune-tick.timer``: one tick on ``calendar`` (systemd.time(7))."""
    if any(not character.isprintable() for character in calendar) or not calendar.strip():
        raise UsageError(f"calendar {calendar!a}: must be one line, such as '*-*-* 03:17:00'")
    return Units(
        files={
            "autotune-tick.service": (
                "[Unit]\n"
                "Description=autotune: one tick\n\n"
                "[Service]\n"
                "Type=oneshot\n"
                f"ExecStart={_command(executable, 'daemon --once', store, config)}\n"
                "TimeoutStopSec=15\n"
                f"{_HARDENING}"
            ),
            "autotune-tick.timer": (
                "[Unit]\n"
                "Description=autotune: ticks\n\n"
                "[Timer]\n"
                f"OnCalendar={calendar.strip()}\n"
                "RandomizedDelaySec=60\n"
                "Persistent=no\n\n"
                "[Install]\n"
                "WantedBy=timers.target\n"
            ),
        }
    )


def _command(executable: Path, words: str, store: str | None, config: Path | None) -> str:
    parts = [_quoted(str(executable)), words]
    parts += ["--config", _quoted(str(config))] if config else []
    parts += ["--db", _quoted(store)] if store else []
    return " ".join(parts)


def _quoted(text: str) -> str:
    """A word of an Exec line (systemd.service(5)): quotes, percent and dollar signs doubled."""
    if any(not character.isprintable() for character in text):
        raise UsageError(f"{text!a}: no unit can hold a name with control characters")
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"'
