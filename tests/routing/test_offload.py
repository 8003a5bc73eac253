"""A share of the clients reads from replicas; the others' reads are held back on the primary."""

import asyncio
import os
import subprocess
import sys

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from lagwise import Causality, NoPrimary, Policy, ReadOnly, Route, Router, events
from lagwise._client.cookies import Jar
from lagwise._client.request import Request
from lagwise._decide.offload import BUCKETS
from lagwise._nodes.offloading import bucket_for
from lagwise.health import ready
from lagwise.testing import Cluster, wait_until
from tests.kit.http import READ_ONLY, insert
from tests.kit.load import errors, loaded
from tests.kit.numbers import enough
from tests.kit.routers import QUICK, both_in_rotation, in_rotation, router, stand_still

HELD_BACK = Policy(offload=0, probe_timeout=5, max_lag=60, sticky_window=60)


def client(bucket: int) -> Causality:
    """A client in this bucket."""
    seen = Causality()
    seen.serve(Request([(b"cookie", f"lagwise-offload={bucket:06d}".encode())], Jar()))
    return seen


def route_of(session: AsyncSession) -> Route:
    """Where a session went."""
    route: Route = session.info["lagwise.route"]
    return route


async def read(db: Router, **options: bool) -> Route:
    """Where a read goes."""
    async with db.read(**options) as session:
        await session.execute(text("SELECT 1"))
    return route_of(session)


async def test_a_share_of_none_reads_on_the_primary_as_read_only_as_ever(cluster: Cluster) -> None:
    """In the reading pool and behind the fence; not counted as fallen back, and no limit of that refuses it."""
    policy = Policy(offload=0, fall_back=False, fall_back_limit=0, probe_timeout=5)
    async with router(cluster, policy) as db:
        await both_in_rotation(db)
        async with db.read() as session:
            assert await session.scalar(READ_ONLY)
            with pytest.raises(ReadOnly):
                await session.execute(text("INSERT INTO item (name) VALUES ('held back')"))
        assert route_of(session) == Route("primary", route_of(session).reason)
        assert (route_of(session).reason, route_of(session).fell_back) == ("held-back", False)
        idle = {name: engine.pool.checkedin() for name, engine in db.pools["primary"].in_use().items()}  # type: ignore[attr-defined]
        assert idle == {"writing": 0, "reading": 1}
        assert (await read(db, primary=True)).reason == "strong"


async def test_a_client_is_let_in_by_its_bucket(cluster: Cluster) -> None:
    """At a tenth: the buckets below a tenth of all. Each read of a client goes the same way."""
    async with router(cluster, Policy(offload=0.1, probe_timeout=5)) as db:
        await both_in_rotation(db)
        tenth = BUCKETS // 10
        for bucket, reason in ((0, "fresh"), (tenth - 1, "fresh"), (tenth, "held-back"), (BUCKETS - 1, "held-back")):
            for _ in range(3):
                with client(bucket):
                    assert (await read(db)).reason == reason


async def test_a_change_takes_effect_with_the_next_session(cluster: Cluster) -> None:
    """A session that is open goes on where it is; the policy in force has the share; a wrong one changes nothing."""
    async with router(cluster, Policy(probe_timeout=5)) as db:
        await both_in_rotation(db)
        async with db.read() as session:
            await session.execute(text("SELECT 1"))
            db.offload = 0
            for wrong in (-1, 1.5, True, float("nan")):
                with pytest.raises(ValueError, match="offload"):
                    db.offload = wrong
            assert (db.offload, db.policy.offload) == (0, 0)
            assert ready(db).notes == ["offload is 0: the reads of the other clients are held back on the primary"]
            assert await session.scalar(text("SELECT pg_is_in_recovery()"))
            assert (await read(db)).reason == "held-back"
            db.offload = 1
            assert (await read(db)).reason == "fresh"
            assert ready(db).notes == []


async def test_the_rest_of_the_policy_cannot_be_set(cluster: Cluster) -> None:
    """A greater max_lag would uncover writes whose tokens are gone; the message says the order that is safe."""
    db = router(cluster)
    with pytest.raises(AttributeError, match="deploy the greater sticky_window first, and one such window later"):
        db.policy = Policy(max_lag=60, sticky_window=60)
    assert db.policy == Policy()


async def test_a_held_back_client_sees_its_writes(cluster: Cluster) -> None:
    """While its replicas stand still, and while its bucket changes from one read to the next: no read misses one."""
    async with router(cluster, HELD_BACK) as db:
        await both_in_rotation(db)
        await stand_still(cluster)
        db.offload = 0.5
        for number in range(10):
            name = f"held back {number}"
            with client(0) as seen:
                async with db.write.begin() as session:
                    await insert(session, name)
            for bucket in (0, BUCKETS - 1, 0):
                with client(bucket) as again:
                    again.learn(seen.token)
                    async with db.read() as session:
                        statement = text("SELECT count(*) FROM item WHERE name = :name")
                        assert await session.scalar(statement, {"name": name}) == 1


async def test_who_the_client_is_outside_of_a_request(cluster: Cluster) -> None:
    """A job, a script: the process itself, so all that it reads goes one way. Another process is another client."""
    mine = bucket_for(None)
    assert [bucket_for(None), bucket_for(Causality())] == [mine, mine]
    with client(7), Causality() as inner:
        assert bucket_for(inner) == 7  # a job that is called inside a request is its client's
    code = "from lagwise._nodes.offloading import bucket_for; print(bucket_for(None))"
    others = {int(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout) for _ in "12"}
    assert len({mine, *others}) == 3
    async with router(cluster, Policy(offload=0.5, probe_timeout=5)) as db:
        await both_in_rotation(db)
        assert len({(await read(db)).reason for _ in range(5)}) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_is_a_client_of_its_own() -> None:
    """Workers that are forked from one process do not all move at once."""
    mine = bucket_for(None)
    receiving, sending = os.pipe()
    if (pid := os.fork()) == 0:
        os.write(sending, str(bucket_for(None)).encode())
        os._exit(0)
    os.waitpid(pid, 0)
    assert int(os.read(receiving, 100)) != mine


async def test_the_way_back_in_an_incident(cluster: Cluster) -> None:
    """`db.offload = 0` under load: every read that opens from then on is the primary's, and not one fails."""
    async with router(cluster, Policy(probe_timeout=5), pool_size=10) as db:
        await both_in_rotation(db)
        back = False

        async def one() -> tuple[bool, Route]:
            opened_after = back
            return opened_after, await read(db)

        reads = enough(300, 5000)
        async with loaded(one, readers=8, reads=reads) as results:
            db.offload, back = 0, True
            more = len(results) + reads // 4
            await wait_until(lambda: len(results) > more, timeout=60, what="reads after the change")
    assert errors(results) == []
    assert {route.on_replica for after, route in results if not after} == {True}
    later = [route for after, route in results if after]
    assert len(later) >= reads // 5
    assert {(route.node, route.reason) for route in later} == {("primary", "held-back")}


async def test_without_a_primary_a_held_back_read_is_refused(doomed: Cluster) -> None:
    """No replica serves a client that none was trusted with; readiness says so. Let in, the client is served."""
    async with router(doomed, QUICK) as db:
        await both_in_rotation(db)
        await doomed.stop("primary")
        await wait_until(lambda: db.view.primary is None, what="the primary is gone")
        assert (await read(db)).on_replica
        assert db.serves(write=False)
        db.offload = 0
        with pytest.raises(NoPrimary, match="held-back"):
            await read(db)
        assert not db.serves(write=False)
        db.offload = 0.5
        assert db.serves(write=False)


async def test_without_replicas_no_read_is_held_back(cluster: Cluster) -> None:
    """There is nothing to hold it back from, and nothing to predict."""
    async with Router(cluster.primary.url, policy=HELD_BACK) as db:
        assert (await read(db)).reason == "no-replicas"
        assert db.shadow.reads == 0


async def test_each_held_back_read_is_told(cluster: Cluster) -> None:
    """Where it went, and then where it would have gone; nothing of it names more than nodes and reasons."""
    seen: list[events.Event] = []
    async with router(cluster, HELD_BACK, on_event=seen.append) as db:
        await in_rotation(db, "replica-1", "replica-2")
        seen.clear()
        await read(db)
        await wait_until(lambda: len(seen) == 2, what="both events")
        routed, held = seen
        assert isinstance(routed, events.Routed)
        assert isinstance(held, events.HeldBack)
        assert (routed.route.node, routed.route.reason) == ("primary", "held-back")
        assert (held.would.reason, held.would.on_replica, held.waited, held.stale) == ("fresh", True, False, 0.0)
        assert (db.shadow.reads, db.shadow.share) == (1, 1.0)
        with Causality():
            await stand_still(cluster)
            async with db.write.begin() as session:
                await insert(session, "told of")
            seen.clear()
            async with asyncio.timeout(5):
                await read(db)
        await wait_until(lambda: len(seen) == 2, what="both events again")
        held = seen[1]
        assert isinstance(held, events.HeldBack)
        assert (held.would.reason, held.would.on_replica, held.waited, held.stale) == (
            "none-caught-up",
            False,
            True,
            1.0,
        )
    assert (db.shadow.would_wait, db.shadow.in_time, dict(db.shadow.on_primary)) == (1, 0, {"none-caught-up": 1})
