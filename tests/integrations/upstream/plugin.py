"""A pytest plugin for SQLAlchemy's own suite: `AsyncSession` and `Session` are lagwise's when its tests import them.

`LAGWISE_UPSTREAM` says how: `plain` leaves SQLAlchemy as it is, `classes` gives the routed classes without a Router,
`router` has every session on an engine made by the `db.write` of a Router that is open on this engine. Outcomes go
to the file `LAGWISE_OUTCOMES`, as a JSON object of test ids. Loaded with `-p` before SQLAlchemy's conftest, so nothing
of `sqlalchemy.testing` is imported at the top.
"""

import copy
import json
import os
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy.ext.asyncio as sqlalchemy_asyncio
from sqlalchemy import orm
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.util.concurrency import await_only, in_greenlet

from lagwise import Policy, Router
from lagwise._sessions.classes import routed

MODE = os.environ["LAGWISE_UPSTREAM"]

_routers: dict[AsyncEngine, Router] = {}
_outcomes: dict[str, str] = {}
_details: dict[str, str] = {}


class _ByRouter(type):
    """Makes a session class ask the Router of its engine for the session; whatever has no Router is made as usual."""

    asked = False  # while db.write makes its session, of the same class and perhaps on the same engine

    def __call__(cls, bind: Any = None, **options: Any) -> Any:
        router = _routers.get(bind) if isinstance(bind, AsyncEngine) else None
        if router is None or "binds" in options or _ByRouter.asked:
            return super().__call__(bind, **options)
        maker: Any = copy.copy(router.write)
        maker.class_ = cls  # the class under test, be it a subclass, in place of the one the Router was given
        given = options.pop("sync_session_class", None) or cls.sync_session_class  # type: ignore[attr-defined]
        _ByRouter.asked = True
        try:
            return maker(sync_session_class=given, **{"expire_on_commit": True, **options})
        finally:
            _ByRouter.asked = False


def _replace_classes() -> None:
    """Put the routed classes where SQLAlchemy's tests import the plain ones from."""
    routed_async, routed_sync = routed(sqlalchemy_asyncio.AsyncSession, orm.Session)
    kind: type = _ByRouter if MODE == "router" else type
    async_session: Any = kind("AsyncSession", (routed_async,), {"sync_session_class": routed_sync})

    # Their default classes are bound when SQLAlchemy defines them.
    class AsyncMaker(sqlalchemy_asyncio.async_sessionmaker[Any]):
        def __init__(self, bind: Any = None, *, class_: Any = async_session, **options: Any) -> None:
            super().__init__(bind, class_=class_, **options)

    class Maker(orm.sessionmaker[Any]):
        def __init__(self, bind: Any = None, *, class_: Any = routed_sync, **options: Any) -> None:
            super().__init__(bind, class_=class_, **options)

    for module, name, value in (
        (sqlalchemy_asyncio, "AsyncSession", async_session),
        (sqlalchemy_asyncio, "async_sessionmaker", AsyncMaker),
        (orm, "Session", routed_sync),
        (orm, "sessionmaker", Maker),
    ):
        setattr(module, name, value)


def _open_routers() -> None:
    """Let SQLAlchemy's factory of test engines open a Router on every asynchronous engine."""
    from sqlalchemy.testing import engines

    make = engines.testing_engine

    def testing_engine(*args: Any, **options: Any) -> Any:
        engine = make(*args, **options)
        if isinstance(engine, AsyncEngine) and in_greenlet():
            # The monitor reads once, when it opens: its statements are none of those the tests count.
            router = Router(engine, policy=Policy(probe_interval=60, max_lag=120, sticky_window=120))
            await_only(router.__aenter__())
            _routers[engine] = router
        return engine

    engines.testing_engine = testing_engine


async def _close_routers() -> None:
    """End what a test has left open, as SQLAlchemy's reaper does with the engines it knows."""
    await sqlalchemy_asyncio.close_all_sessions()
    while _routers:
        _, router = _routers.popitem()
        await router.__aexit__(None, None, None)


def pytest_collection_finish() -> None:
    if MODE == "router":
        _open_routers()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown() -> Generator[None, object, object]:
    if _routers:
        from sqlalchemy.testing import asyncio

        # The one loop of SQLAlchemy's suite has no public name.
        asyncio._assume_async(lambda: await_only(_close_routers()))  # type: ignore[no-untyped-call]
    return (yield)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """The outcome of a test: `passed` when its set-up, call and tear-down did."""
    if report.outcome != "passed" or report.nodeid not in _outcomes:
        _outcomes[report.nodeid] = report.outcome
    if report.failed:
        _details[report.nodeid] = report.longreprtext


def pytest_sessionfinish() -> None:
    Path(os.environ["LAGWISE_OUTCOMES"]).write_text(
        json.dumps({"outcomes": _outcomes, "failures": _details}), encoding="utf-8"
    )


if MODE != "plain":
    _replace_classes()
