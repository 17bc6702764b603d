"""systemd units: the daemon as a service, or a timer that ticks once; both harden what they start."""

from __future__ import annotations

from pathlib import Path

from autotuner.environment import LABEL_VARIABLE
from autotuner.errors import UsageError
from autotuner.paths import CACHE_VARIABLE

_HARDENING = """\
TimeoutStopSec=15
NoNewPrivileges=yes
PrivateTmp=yes
ProtectSystem=full
ProtectKernelTunables=yes
ProtectControlGroups=yes
RestrictSUIDSGID=yes
UMask=0077
Nice=10
"""
_SERVICE = """\
[Unit]
Description=autotune: keeps the fastest safe settings of Toto forecasts
Documentation=man:systemd.service(5)
After=network.target

[Service]
Type=notify
NotifyAccess=main
ExecStart={command}
ExecReload=/bin/kill -HUP $MAINPID
Restart=on-failure
RestartSec=30
WatchdogSec=120
{hardening}
[Install]
WantedBy=default.target
"""
_TICK = """\
[Unit]
Description=autotune: one tick

[Service]
Type=oneshot
ExecStart={command}
{hardening}"""
_TIMER = """\
[Unit]
Description=autotune: ticks

[Timer]
OnCalendar={calendar}
RandomizedDelaySec=60
Persistent=no

[Install]
WantedBy=timers.target
"""


def service_unit(
    *,
    executable: Path,
    store: str | None,
    config: Path | None,
    cache: str | None = None,
    label: str | None = None,
) -> dict[str, str]:
    """``autotune.service``, its name to its text: the daemon, started at boot, watched, restarted when it fails."""
    command = _command(executable, "daemon", store, config)
    return {
        "autotune.service": _SERVICE.format(
            command=command, hardening=_environment(cache, label) + _HARDENING
        )
    }


def timer_units(
    *,
    executable: Path,
    store: str | None,
    config: Path | None,
    calendar: str,
    cache: str | None = None,
    label: str | None = None,
) -> dict[str, str]:
    """``autotune-tick.service`` and ``autotune-tick.timer``: one tick on ``calendar`` (systemd.time(7)).

    Raises ``UsageError`` for a calendar that is not one line.
    """
    if any(not character.isprintable() for character in calendar) or not calendar.strip():
        raise UsageError(f"calendar {calendar!a}: must be one line, such as '*-*-* 03:17:00'")
    command = _command(executable, "daemon --once", store, config)
    return {
        "autotune-tick.service": _TICK.format(
            command=command, hardening=_environment(cache, label) + _HARDENING
        ),
        "autotune-tick.timer": _TIMER.format(calendar=calendar.strip()),
    }


def _environment(cache: str | None, label: str | None) -> str:
    given = ((CACHE_VARIABLE, cache), (LABEL_VARIABLE, label))
    return "".join(f"Environment={_quoted(f'{name}={text}')}\n" for name, text in given if text is not None)


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
