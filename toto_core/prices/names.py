"""Knows the names that sources give to the columns of times, prices and symbols."""

from __future__ import annotations

import re

_DECORATION = re.compile(r"^[0-9]+\. |[^a-z0-9#%]")
_CURRENCIES = r"(?:usd|usdt|eur|gbp|jpy|chf|inr)?"
ADJUSTED = re.compile(
    rf"adj(?:usted)?clos(?:e|ing)(?:price)?{_CURRENCIES}|clos(?:e|ing)(?:price)?adj(?:usted)?"
)
CLOSE = re.compile(rf"clos(?:e|ing)(?:price)?(?:last)?{_CURRENCIES}|closelast")
OTHER_PRICE = re.compile(rf"(?:last|settle|settlement)?price{_CURRENCIES}|last|lasttrade|settle")
BESIDE_CLOSE = re.compile(rf"(?:open|high|low)(?:ing)?(?:price)?{_CURRENCIES}")
# The best known first; where several hold stamps, the one that tells the rows apart is the time.
TIMES = (
    *("timestamp", "unix", "unixtime", "unixtimestamp", "epoch", "windowstart", "opentime", "datetime", "ts"),
    *("gmttime", "timeutc", "timegmt", "localtime", "timeest", "timeeet", "bartime", "begintime", "beginsat"),
    *(
        "snappedat",
        "dateutc",
        "tradedate",
        "tradingday",
        "tradingdate",
        "pricedate",
        "date",
        "time",
        "day",
        "timeopen",
    ),
    *("closetime", "timeclose", "index", "t"),
)
_SYMBOLS = (
    *("symbol", "symbols", "ticker", "tscode", "instrument", "sym", "tic", "pair", "asset", "stock", "code"),
    *("act symbol", "security", "contract", "name"),
)
SYMBOLS = tuple(name.replace(" ", "") for name in _SYMBOLS)
CLOCK = re.compile(r"[0-9]{1,2}:[0-9]{2}(:[0-9]{2}(\.[0-9]+)?)?( ?[AaPp][Mm])?|[0-9]{6}")


def plain(name: str) -> str:
    """A column's name without case, blanks and decoration: ``Adj Close**`` is ``adjclose``."""
    return _DECORATION.sub("", name.strip().lower())


def is_known(name: str) -> bool:
    """Whether a source names a column of times, prices or symbols so."""
    known = plain(name)
    patterns = (ADJUSTED, CLOSE, OTHER_PRICE, BESIDE_CLOSE)
    return known in TIMES or known in SYMBOLS or any(pattern.fullmatch(known) for pattern in patterns)
