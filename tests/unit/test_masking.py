"""No password comes through, in whichever form an address is written or mistyped; what has none stays readable."""

from __future__ import annotations

from urllib.parse import quote, quote_plus

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from storage.masking import masked, masked_address

# A password is told from the rest of an address by its middle, which nothing else there holds.
CORE = "zQ7"
SIGNS = st.text(alphabet="ab1@:/%?#&=;'\"\\ .,+-$!~*()[]{}<>\u00fc\u4e2d\U0001f600", max_size=6)
PASSWORDS = st.builds(lambda before, after: f"{before}{CORE}{after}", SIGNS, SIGNS)

RAW = [
    "postgresql+psycopg://user:{}@host:5432/db",
    "postgresql://user:{}@host/db?sslmode=require",
    "postgres://:{}@host",
    "postgresql:/user:{}@host/db",
    "postgresql:user:{}@host/db",
    "postgresql//user:{}@host/db",
    "postgres//user:{}@host/db",
    "postgressql://user:{}@host/db",
    "psotgresql://user:{}@host/db",
    "postgresql ://user:{}@host/db",
    "postgresql:// user:{}@host/db",
    "postgresql: //user:{}@host",
    "postgresql;//user:{}@host",
    "://user:{}@host/db",
    "//user:{}@host/db",
    "user:{}@host/db",
    " 'postgresql://user:{}@host/db'",
    "DATABASE_URL=postgresql://user:{}@host/db",
    "postgresql://user@server:{}@host/db",
    "redis://:{}@host:6379/0",
    "mysql+pymysql://user:{}@host/db",
    "sqlite://user:{}@host/db",
    "postgresql://user@host/db?password={}",
    "postgresql:///db?host=/tmp&PASSWORD={}",
    "postgresql:///db?p%61ssword={}&sslmode=require",
    "postgresql://host/db?sslpassword={}&sslmode=require",
    "postgresql://host/db?sslmode=require&sslpassword={}",
    "host=h user=u password={} sslmode=require",
    "host=h password = {}",
    "password={} host=h",
]


@pytest.mark.parametrize("form", RAW)
@given(password=PASSWORDS)
@example(password=f"{CORE}@x")
@example(password=f"a://{CORE}@h")
def test_no_password_comes_out_of_an_address(form: str, password: str) -> None:
    for written in (password, quote(password, safe=""), quote(password), quote_plus(password)):
        shown = masked_address(form.format(written))
        assert CORE not in shown
        assert masked_address(shown) == shown
        assert masked(shown) == shown


@given(password=PASSWORDS, form=st.sampled_from(["host=h password='{}' sslmode=require", "password='{}'"]))
def test_no_quoted_password_comes_out(password: str, form: str) -> None:
    escaped = password.replace("\\", "\\\\").replace("'", "\\'")
    for mask in (masked, masked_address):
        shown = mask(form.format(escaped))
        assert CORE not in shown
        assert "sslmode=require" in shown or "sslmode" not in form


@given(
    passwords=st.lists(
        st.from_regex(r"[a-z%:/?#!*.-]{0,4}zQ7[a-z%:/?#!*.-]{0,4}", fullmatch=True), min_size=1, max_size=3
    )
)
def test_prose_may_hold_several_addresses(passwords: list[str]) -> None:
    forms = [
        "postgresql://u:{}@h/db",
        "redis://:{}@h",
        "(postgres:/u:{}@h)",
        "'u:{}@h/db'",
        "x?sslpassword={}&a=b",
    ]
    for shift in range(len(forms)):
        addresses = [forms[(shift + place) % len(forms)].format(each) for place, each in enumerate(passwords)]
        shown = masked(f"cannot copy {' to '.join(addresses)}: refused\nby the server")
        assert CORE not in shown
        assert shown.startswith("cannot copy ")
        assert shown.endswith("\nby the server")


@pytest.mark.parametrize(
    "text",
    [
        "/data/autotune.db",
        "/data/a:b@c?password=d.db",
        "./a:b@c.db",
        "~/my prices@home.db",
        "my prices/x@y.db",
        "a=b.db",
        "sqlite:////data/a:b@c.db?timeout=5",
        "sqlite:///a.db",
        "file:/data/a:b@c.db",
        "postgresql://host/db",
        "postgresql://host:5432/db",
        "postgresql+psycopg://user@host:5432/db?sslmode=require&passfile=/home/u/.pgpass",
        "postgresql+psycopg://autotune@/postgres?host=/tmp/socket",
        "postgresql://user@[::1]:5432/db",
        "postgresql://[::1]:5432/db",
        "postgresql://a:1,b:2/db",
        "host=h user=u dbname=d",
        "mysql://h/db",
        "",
    ],
)
def test_an_address_without_a_password_stays_as_it_is(text: str) -> None:
    assert masked_address(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "give a path or postgresql+psycopg://USER@HOST/NAME",
        "the store's address is no URL: give a path or postgresql+psycopg://…",
        'postgresql+psycopg://u:***@h/db cannot be reached (server at "::1", port 5432: role "x@y"): check',
        "dashboard at http://127.0.0.1:8484/, Ctrl-C ends it; write to a@b.c",
        "dashboard at http://[::1]:8484/",
        "AMD: drift 0.1 %, 12 @ 3 GHz; a=b; passfile=/home/u/.pgpass",
        "Background on this error at: https://sqlalche.me/e/20/e3q8)",
        "sqlite:////data/autotune.db: a URL",
    ],
)
def test_prose_without_a_password_stays_as_it_is(text: str) -> None:
    assert masked(text) == text


def test_what_is_no_secret_stays_readable_beside_one() -> None:
    long = "postgresql+psycopg://user:{}@host:5432/db?sslmode=require&password={}&passfile=/p"
    assert masked_address(long.format("a", "b")) == long.format("***", "***")
    assert masked_address("host=h password=a b user=u") == "host=h password=*** user=u"
    assert (
        masked("x postgresql://u:a@h and postgresql://v:b@i y")
        == "x postgresql://u:***@h and postgresql://v:***@i y"
    )
