"""What a Router is made with: a mistake is told where it is made, by its setting, without a secret."""

import re
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import pytest
from pydantic import PostgresDsn, SecretStr
from sqlalchemy import create_engine, make_url
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from lagwise import Policy, Replica, Router
from lagwise.events import Event

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
    "a weight that is a URL": (lambda: Replica(URL, weight=URL), "weight must be a number above 0, not what was given"),  # type: ignore[arg-type]
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
    "a URL for a name": (lambda: Router(URL, {URL: GOOD}), "the name of replica 1 must be text on one line"),
    "no name": (lambda: Router(URL, {"a": GOOD, "": GOOD}), "the name of replica 2 must be text on one line"),
    "a name of two lines": (lambda: Router(URL, {"replica\n": GOOD}), "the name of replica 1 must be text on one line"),
    "an escaping name": (lambda: Router(URL, {"a\x1b[2J": GOOD}), "the name of replica 1 must be text on one line"),
    "a name that is a number": (lambda: Router(URL, {1: GOOD}), "the name of replica 1 must be text on one line"),  # type: ignore[dict-item]
}  # fmt: skip


@pytest.mark.parametrize(("make", "says"), TARGETS.values(), ids=TARGETS)
def test_a_node_is_a_url_or_an_engine(make: Callable[[], Any], says: str) -> None:
    """Whatever else is given is a ValueError that names the setting, and repeats no URL, host or password."""
    refused(make, says)


class Own(AsyncSession):
    """A session class whose options are its own affair."""

    def __init__(self, *args: Any, tenant: str, **options: Any) -> None:
        super().__init__(*args, **options)
        self.tenant = tenant


async def waits(event: Event) -> None:
    """No watcher: what it returns is never awaited."""


SETTINGS: dict[str, tuple[dict[str, Any], str]] = {
    "a policy that is a mapping": ({"policy": {"max_lag": 1}}, "policy must be a Policy, not a dict: give policy="),
    "a policy that is empty": ({"policy": {}}, "policy must be a Policy, not a dict"),
    "a policy that is a URL": ({"policy": URL}, "policy must be a Policy, not a str"),
    "a field of the policy": ({"max_lag": 3}, "max_lag belongs to the policy: give policy=Policy(max_lag=...)"),
    "a number for a watcher": ({"on_event": 3}, "on_event must be a function that takes an event, not 3"),
    "an async watcher": ({"on_event": waits}, "on_event must be a plain function, not an async one"),
    "a size that is text": ({"pool_size": "20"}, "pool_size must be a whole number, at least 0, not '20'"),
    "a size that is a URL": ({"pool_size": URL}, "pool_size must be a whole number, at least 0"),
    "a size that is a half": ({"pool_size": 2.5}, "pool_size must be a whole number, at least 0, not 2.5"),
    "a size that is a truth": ({"pool_size": True}, "pool_size must be a whole number, at least 0, not True"),
    "a size below 0": ({"pool_size": -1}, "pool_size must be a whole number, at least 0, not -1"),
    "an overflow below none": ({"max_overflow": -2}, "max_overflow must be a whole number, at least -1, not -2"),
    "a time that is text": ({"pool_timeout": "5"}, "pool_timeout must be a number of seconds, at least 0, not '5'"),
    "a time that is no number": ({"pool_recycle": float("nan")}, "pool_recycle must be a number of seconds, at least"),
    "a pool that is no class": ({"poolclass": "NullPool"}, "poolclass must be a class, such as sqlalchemy.pool"),
    "a mode that there is not": ({"pooling": URL}, 'pooling must be "session" or "transaction"'),
    "a mode in a list": ({"pooling": ["session"]}, 'pooling must be "session" or "transaction", not a list'),
    "a system that is a URL": ({"system": URL}, "system must be the cluster's system identifier"),
    "session options in a list": (
        {"session_options": [("info", {})]},
        "session_options must be a mapping, as for asyn",
    ),
    "a session option that there is not": (
        {"session_options": {"expire_on_comit": False}},
        "session_options: expire_on_comit is not known: did you mean expire_on_commit?",
    ),
    "a session class that is none": ({"session_options": {"class_": Session}}, "session_options: class_ must be Async"),
    "a session class by name": ({"session_options": {"class_": "Own"}}, "session_options: class_ must be AsyncSession"),
    "a synchronous class that is none": (
        {"session_options": {"sync_session_class": AsyncSession}},
        "session_options: sync_session_class must be Session",
    ),
}


@pytest.mark.parametrize(("options", "says"), SETTINGS.values(), ids=SETTINGS)
def test_a_setting_that_makes_no_sense_is_told_at_once(options: dict[str, Any], says: str) -> None:
    """Before anything is opened, with the setting's name; what was given is repeated only where it is a number."""
    refused(lambda: Router(URL, [URL], **options), says)


@pytest.mark.parametrize("name", [field.name for field in fields(Policy)])
def test_a_policys_error_repeats_no_text(name: str) -> None:
    """A URL that was put into any field of the policy is not in the error."""
    given: dict[str, Any] = {name: URL}
    refused(lambda: Policy(**given), f"{name} must be ")


def test_what_may_be_meant_is_let_pass() -> None:
    """No limit, no end to a wait, an option of the dialect's, and what the application's own session class takes."""
    Router(URL, pool_size=0, max_overflow=-1, pool_timeout=None, pool_recycle=0.5, json_serializer=str)
    Router(URL, session_options={"class_": Own, "tenant": "one", "another": 1})
    Router(URL, session_options={"autobegin": True, "info": {}, "execution_options": {}}, policy=None)


def test_a_watcher_that_comes_later_is_judged_as_well() -> None:
    """`db.watch()` refuses what `on_event` refuses."""
    refused(lambda: Router(URL).watch(waits), "on_event must be a plain function")  # type: ignore[arg-type]


def test_a_url_may_have_white_space_around_it() -> None:
    """As a file that is read has it at its end."""
    assert list(Router(f" {URL}\n", {"near": f"{URL}\n"}.values()).pools) == ["primary", "replica-1"]  # type: ignore[arg-type]


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "Postgres", "POSTGRESQL+asyncpg"])
def test_a_scheme_without_a_driver_means_asyncpg(scheme: str) -> None:
    """In code as in LAGWISE_PRIMARY, of a text, of a `URL` and of a `Replica`; all else of the URL stays."""
    given = URL.replace("postgresql+asyncpg", scheme)
    pools = Router(given, [make_url(given), Replica(given)]).pools.values()
    assert {node.writing.url for node in pools} == {make_url(URL)}


def test_engines_and_urls_are_taken_as_they_are() -> None:
    """An engine stays the application's own, and the URL of a Replica is what was given."""
    engine = create_async_engine(URL)
    assert Router(engine).pools["primary"].writing is engine
    assert Replica(URL).url == URL
    assert list(Router("sqlite+aiosqlite://").pools) == ["primary"]
