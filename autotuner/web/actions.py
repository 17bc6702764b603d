"""What a person may change from a page: take back, pin, unpin, tune again; for who knows the token alone."""

from __future__ import annotations

import hmac
import os
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from autotuner.errors import AutotuneError, one_line
from autotuner.store import Store
from toto_core.settings import RuntimeSettings, SettingsError
from toto_core.symbols import parse_symbol

WRONG_TOKEN_SECONDS = 0.5
"""How long a wrong token is waited for, so that nobody tries many."""
_MOST_SESSIONS = 100
_LONGEST_REASON = 200
_MAIN = "from autotuner.cli import main; main()"


class RefusedError(Exception):
    """Nobody who may do that asked for it."""


@dataclass(kw_only=True)
class Actions:
    """Actions on one store. A session is a cookie; each has a word that only its own pages know, for its forms."""

    location: str
    token: str
    _sessions: dict[str, str] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _tuner: subprocess.Popen[bytes] | None = None

    def log_in(self, token: str) -> str:
        """A new session. Raises ``RefusedError`` for a wrong token, after a while."""
        with self._lock:
            if not hmac.compare_digest(token.encode(), self.token.encode()):
                time.sleep(WRONG_TOKEN_SECONDS)
                raise RefusedError("that is not the token")
            while len(self._sessions) >= _MOST_SESSIONS:
                del self._sessions[next(iter(self._sessions))]
            session = secrets.token_urlsafe(24)
            self._sessions[session] = secrets.token_urlsafe(24)
        return session

    def csrf(self, session: str) -> str | None:
        """The word of a session's forms, None for no session."""
        return self._sessions.get(session)

    def check(self, session: str, word: str) -> None:
        """Raise ``RefusedError`` unless the word is that of the session."""
        known = self.csrf(session)
        if known is None or not hmac.compare_digest(known.encode(), word.encode()):
            raise RefusedError("log in first: the token stands where the dashboard was started")

    def do(self, action: str, form: Mapping[str, str]) -> str:
        """Do it and say what was done. Raises ``AutotuneError``, ``StorageError`` or ``SymbolError``."""
        known = {"rollback": self._roll_back, "pin": self._pin, "unpin": self._unpin, "retune": self._tune}
        if action not in known:
            raise AutotuneError(f"no such action; known are {', '.join(known)}")
        symbol = parse_symbol(form.get("symbol", ""))
        reason = one_line(form.get("reason", "").strip())[:_LONGEST_REASON] or "on the dashboard"
        return known[action](symbol, reason, form)

    def _roll_back(self, symbol: str, reason: str, form: Mapping[str, str]) -> str:
        with Store(self.location, create=False) as store:
            active = store.records.roll_back(symbol, reason, datetime.now(UTC))[1]
        return f"{symbol}: the newest promotion is taken back; " + (
            "the one before is active again." if active else "no other is active."
        )

    def _pin(self, symbol: str, reason: str, form: Mapping[str, str]) -> str:
        try:
            settings = RuntimeSettings.from_json(form.get("settings", ""))
        except SettingsError as error:
            raise AutotuneError(str(error)) from None
        with Store(self.location, create=False) as store:
            store.pin(symbol, settings, reason)
        return f"{symbol} is pinned to {settings.label}."

    def _unpin(self, symbol: str, reason: str, form: Mapping[str, str]) -> str:
        with Store(self.location, create=False) as store:
            store.records.unpin(symbol, reason, datetime.now(UTC))
        return f"{symbol}: its promotion decides again."

    def _tune(self, symbol: str, reason: str, form: Mapping[str, str]) -> str:
        # One at a time, with the store in the environment: a command line is what every user can read.
        with self._lock:
            if self._tuner is not None and self._tuner.poll() is None:
                raise AutotuneError(
                    "a run that was asked for here is still going on: wait until it has ended"
                )
            command = [
                sys.executable,
                "-c",
                _MAIN,
                "run",
                "--symbol",
                symbol,
                "--as-before",
                f"--because={reason}",
            ]
            self._tuner = subprocess.Popen(
                command,
                env=os.environ | {"AUTOTUNE_DB": self.location},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            threading.Thread(target=self._tuner.wait, daemon=True).start()  # or it would stay as a zombie
        return f"{symbol} is being tuned again; its page follows the run."
