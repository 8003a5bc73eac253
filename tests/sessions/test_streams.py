"""Streams keep the promises of other reads: tried elsewhere, and what they have shown stays seen."""

import pytest
from sqlalchemy import select, text

from lagwise import Causality, Policy, Router
from lagwise._sessions.lease import Lease
from lagwise.testing import Cluster
from tests.kit.application import Item
from tests.kit.routers import both_in_rotation, in_rotation, router, stand_still
from tests.kit.sessions import count


async def test_a_first_statement_that_streams_is_tried_elsewhere(cluster: Cluster) -> None:
    """The replica of the session is killed before its first stream: another node answers."""
    async with router(cluster, Policy(probe_interval=60, probe_timeout=5, max_lag=120, sticky_window=120)) as db:
        await in_rotation(db, "replica-1", "replica-2")
        async with db.read() as session:
            chosen = session.info["lagwise.route"].node
            await cluster.kill(chosen)
            rows = await (await session.stream(text("SELECT generate_series(1, 3)"))).all()
            assert [tuple(row) for row in rows] == [(1,), (2,), (3,)]
            assert session.info["lagwise.route"].node != chosen


async def test_what_a_stream_has_shown_stays_seen(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """guarantee="session": a row of a stream that is still open is in the next read, while replicas stand still.

    To remember it when the session ends is too late: the next read misses it.
    """
    policy = Policy(guarantee="session", max_lag=60, sticky_window=60, catch_up=0, probe_timeout=5)
    async with router(cluster, policy) as db:
        await both_in_rotation(db)
        await stand_still(cluster)
        async with db.write.begin() as session:
            session.add(Item(name="row of a stream"))
        assert await _seen_next(db) == 1
        monkeypatch.setattr(Lease, "remembers", False)
        assert await _seen_next(db) == 0


async def _seen_next(db: Router) -> int:
    with Causality():
        async with db.read(primary=True) as session:
            stream = await session.stream(select(Item.name).where(Item.name == "row of a stream"))
            assert (await anext(stream)) == ("row of a stream",)
            async with db.read() as other:
                return await count(other, "row of a stream")
