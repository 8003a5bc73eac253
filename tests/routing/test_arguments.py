"""What a Router is made with: a mistake is told where it is made, by its setting, without a secret."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import PostgresDsn, SecretStr
from sqlalchemy import create_engine, make_url
from sqlalchemy.ext.asyncio import create_async_engine

from lagwise import Replica, Router

HOST, PASSWORD = "planted.example", "hunter2-planted"
URL = f"postgresql+asyncpg://app:{PASSWORD}@{HOST}/shop"
GOOD = "postgresql+asyncpg://localhost/shop"
NO_URL = "is no database URL: write postgresql+asyncpg://user:password@host/database"
NO_TARGET = "must be a URL (a str or a sqlalchemy.URL) or an AsyncEngine, not "
ONE = "a mapping of names, or a list, of URLs or engines, not "


def refused(make: Callable[[], object], says: str) -> None:
    """A ValueError of one line that begins so; neither it nor an error in its context holds a secret."""
    with pytest.raises(ValueError, match=f"^{re.escape(says)}") as caught:
        make()
    error: BaseException | None = caught.value
    whole = ""
    while error is not None:
        whole += f"{error} {error!r}"
        error = error.__context__
    assert (PASSWORD in whole, HOST in whole, "\n" in str(caught.value)) == (False, False, False)


TARGETS: dict[str, tuple[Callable[[], object], str]] = {
    "a DSN of pydantic": (lambda: Router(PostgresDsn(URL)), f"primary {NO_TARGET}a PostgresDsn; of a DSN of pydantic"),  # type: ignore[arg-type]
    "a list for a primary": (lambda: Router([URL]), f"primary {NO_TARGET}a list"),  # type: ignore[arg-type]
    "a mapping for a primary": (lambda: Router({"primary": URL}), f"primary {NO_TARGET}a dict"),  # type: ignore[arg-type]
    "a masked URL": (lambda: Router(SecretStr(URL)), f"primary {NO_TARGET}a SecretStr"),  # type: ignore[arg-type]
    "bytes": (lambda: Router(URL.encode()), f"primary {NO_TARGET}a bytes"),  # type: ignore[arg-type]
    "a replica for a primary": (lambda: Router(Replica(URL)), f"primary {NO_TARGET}a Replica"),  # type: ignore[arg-type]
    "pairs": (lambda: Router(URL, [("a", URL)]), f"replicas at place 1 {NO_TARGET}a tuple"),  # type: ignore[list-item]
    "mappings": (lambda: Router(URL, [GOOD, {"url": URL}]), f"replicas at place 2 {NO_TARGET}a dict"),  # type: ignore[list-item]
    "a list by name": (lambda: Router(URL, {"a": [URL]}), f'replica "a" {NO_TARGET}a list'),  # type: ignore[dict-item]
    "a list of lists": (lambda: Router(URL, [[URL, URL]]), f"replicas at place 1 {NO_TARGET}a list"),  # type: ignore[list-item]
    "None among replicas": (lambda: Router(URL, [None]), f"replicas at place 1 {NO_TARGET}a NoneType"),  # type: ignore[list-item]
    "a Replica of a mapping": (lambda: Replica({"url": URL}), f"url of a Replica {NO_TARGET}a dict"),  # type: ignore[arg-type]
    "a Replica of a DSN": (lambda: Replica(PostgresDsn(URL)), f"url of a Replica {NO_TARGET}a PostgresDsn"),  # type: ignore[arg-type]
    "a weight that is a URL": (lambda: Replica(URL, weight=URL), "weight must be a number above 0; to stop"),  # type: ignore[arg-type]
    "from_env": (
        lambda: Router.from_env(primary=URL, replicas=[(URL,)]), f"replicas at place 1 {NO_TARGET}a tuple",
    ),
    "no scheme": (lambda: Router(f"app:{PASSWORD}@{HOST}"), f"primary {NO_URL}"),
    "no scheme in a Replica": (lambda: Replica(f"app:{PASSWORD}@{HOST}"), f"url of a Replica {NO_URL}"),
    "nothing": (lambda: Router(URL, [""]), f"replicas at place 1 {NO_URL}"),
    "a port that is none": (lambda: Router(f"postgresql+asyncpg://{HOST}:{PASSWORD}/x"), f"primary {NO_URL}"),
    "a port too high": (lambda: Router(f"{URL.replace('/shop', ':65536/shop')}"), "primary has a port that is not bet"),
    "a port of 0": (lambda: Router(make_url(URL).set(port=0)), "primary has a port that is not between 1 and 65535"),
    "two URLs in one": (lambda: Router(f"{URL},{URL}"), "primary is more than one URL"),
    "another driver": (lambda: Router(URL.replace("asyncpg", "psycopg")), "primary names another driver than asyncpg"),
    "a database unheard of": (lambda: Router(URL.replace("postgresql+asyncpg", "foo")), "primary names a database or"),
    "a driver without asyncio": (lambda: Router("sqlite://"), "primary names a database or a driver that SQLAlchemy"),
    "a synchronous engine": (
        lambda: Router(create_engine("sqlite://")),  # type: ignore[arg-type]
        "primary is an Engine, which is not asynchronous: make it by create_async_engine()",
    ),
    "a synchronous replica": (
        lambda: Router(URL, {"a": create_engine("sqlite://")}),  # type: ignore[dict-item]
        'replica "a" is an Engine, which is not asynchronous',
    ),
    "replicas that are one engine": (
        lambda: Router(URL, create_async_engine(URL)),  # type: ignore[arg-type]
        f"replicas must be {ONE}an AsyncEngine; leave it out for none",
    ),
    "None for replicas": (lambda: Router(URL, None), f"replicas must be {ONE}a NoneType; leave it out for none"),  # type: ignore[arg-type]
    "a set, whose order changes": (lambda: Router(URL, {URL}), f"replicas must be {ONE}a set"),  # type: ignore[arg-type]
    "a URL for a name": (lambda: Router(URL, {URL: GOOD}), "the name of replica 1 must be a word"),
    "no name": (lambda: Router(URL, {"a": GOOD, "": GOOD}), "the name of replica 2 must be a word"),
    "a name of two lines": (lambda: Router(URL, {"replica\n": GOOD}), "the name of replica 1 must be a word"),
    "a name that a terminal obeys": (lambda: Router(URL, {"a\x1b[2J": GOOD}), "the name of replica 1 must be a word"),
    "a name that is a number": (lambda: Router(URL, {1: GOOD}), "the name of replica 1 must be a word"),  # type: ignore[dict-item]
}  # fmt: skip


@pytest.mark.parametrize(("make", "says"), TARGETS.values(), ids=TARGETS)
def test_a_node_is_a_url_or_an_engine(make: Callable[[], Any], says: str) -> None:
    """Whatever else is given is a ValueError that names the setting, and repeats no URL, host or password."""
    refused(make, says)


def test_a_url_may_have_white_space_around_it() -> None:
    """As a file that is read has it at its end."""
    assert list(Router(f" {URL}\n", {"near": f"{URL}\n"}.values()).pools) == ["primary", "replica-1"]  # type: ignore[arg-type]


def test_engines_and_urls_are_taken_as_they_are() -> None:
    """An engine stays the application's own, and the URL of a Replica is what was given."""
    engine = create_async_engine(URL)
    assert Router(engine).pools["primary"].writing is engine
    assert Replica(URL).url == URL
    assert list(Router("sqlite+aiosqlite://").pools) == ["primary"]
