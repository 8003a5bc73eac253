"""What an application hangs on its engines and pools still happens, though lagwise takes the short way past it."""

import asyncio
import gc
import logging
from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import create_async_engine

from lagwise import Router
from lagwise._pools.engine import RoutedEngine
from lagwise.testing import Cluster
from tests.kit.routers import LONG, in_rotation


@pytest.fixture(params=[False, True], ids=["lagwise", "naive: silent all the same"])
def silent(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether every connection goes back silently, whoever listens and however many there are."""
    if request.param:
        monkeypatch.setattr(RoutedEngine, "gives_back_silently", True)
    return bool(request.param)


async def read(db: Router) -> str:
    """One connection, and where it went: outside of SQLAlchemy's greenlet it goes back without a word, if it can."""
    async with db.read.connect() as connection:
        found = await connection.execute(text("SELECT pg_sleep(0.05)::text || current_setting('cluster_name')"))
        return str(found.scalar())


async def test_who_listens_later_is_heard(cluster: Cluster) -> None:
    """An engine that gets its first listener after it was used, as by instrumentation: the next session is heard."""
    engine = create_async_engine(cluster["replica-1"].url)
    heard: list[str] = []
    async with Router(cluster.primary.url, [engine], policy=LONG) as db:
        await in_rotation(db, "replica-1")
        await read(db)
        event.listen(engine.sync_engine, "before_cursor_execute", lambda *args: heard.append(args[2]))
        assert await read(db) == "replica-1"
    await engine.dispose()
    assert len(heard) == 1


@pytest.mark.filterwarnings("ignore:unclosed connection:ResourceWarning")
async def test_an_overflowing_pool_closes_what_is_too_many(
    cluster: Cluster, caplog: pytest.LogCaptureFixture, silent: bool
) -> None:
    """Five sessions on a pool of one: four connections are closed, in order, when they come back."""
    small: Any = {"pool_size": 1, "max_overflow": 4}
    with caplog.at_level(logging.ERROR, "sqlalchemy.pool"):
        async with Router(cluster.primary.url, [cluster["replica-1"].url], policy=LONG, **small) as db:
            await in_rotation(db, "replica-1")
            assert {*await asyncio.gather(*(read(db) for _ in range(5)))} == {"replica-1"}
            assert db.pools["replica-1"].load() == 0
    gc.collect()  # of the naive one, connections that nobody has closed
    assert bool(caplog.records) is silent


async def test_a_reset_listener_may_ask_the_server(
    cluster: Cluster, caplog: pytest.LogCaptureFixture, silent: bool
) -> None:
    """https://docs.sqlalchemy.org/en/20/core/pooling.html#resetting-connections-other-than-rollback: it awaits."""
    engine = create_async_engine(cluster["replica-1"].url, max_overflow=0)
    asked: list[str] = []

    def reset(connection: Any, _record: Any, state: Any) -> None:
        if state.asyncio_safe:
            asked.append(connection.run_async(lambda driver: driver.fetchval("SHOW cluster_name")))

    event.listen(engine.sync_engine.pool, "reset", reset)
    async with Router(cluster.primary.url, [engine], policy=LONG) as db:
        await in_rotation(db, "replica-1")
        await read(db)
    await engine.dispose()
    assert asked == ([] if silent else ["replica-1"])
    assert ("MissingGreenlet" in caplog.text) is silent
