"""An answer is not silence: what a node that refuses new connections can still do, it does."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from time import monotonic

import pytest
from sqlalchemy import make_url, text
from sqlalchemy.exc import DBAPIError

from lagwise import NoPrimary, Policy, Router
from lagwise.testing import Cluster, Node, wait_until
from tests.kit.logs import event_of

QUICK = Policy(probe_interval=0.05, probe_timeout=0.3, abort_after=0.5)
MONITORS = "SELECT pid FROM pg_stat_activity WHERE usename = 'app' AND query LIKE '%pg_control_system%'"
REFUSALS = {"full": "ALTER ROLE app CONNECTION LIMIT 1", "password": "ALTER ROLE app PASSWORD 'another'"}


@pytest.fixture(scope="module")
async def apart() -> AsyncIterator[Cluster]:
    """A primary and a replica, and a role of the application's own."""
    async with Cluster(replicas=1) as cluster:
        await cluster.primary.execute("CREATE ROLE app LOGIN; GRANT pg_monitor TO app")
        yield cluster


@pytest.fixture
async def settled(apart: Cluster) -> AsyncIterator[Cluster]:
    """The two, which let the role in; mended afterwards."""
    await apart.primary.execute("ALTER ROLE app CONNECTION LIMIT -1 PASSWORD 'app'")
    await apart.caught_up()
    rules = [(node, Path(await node.fetchval("SHOW hba_file"))) for node in apart.nodes.values()]
    before = [path.read_text() for _, path in rules]
    yield apart
    for (node, path), text_before in zip(rules, before, strict=True):
        path.write_text(text_before)
        await node.execute("SELECT pg_reload_conf()")
    await apart.restore()


def router(cluster: Cluster, policy: Policy = QUICK) -> Router:
    primary, replica = (make_url(node.url).set(username="app", password="app") for node in cluster.nodes.values())
    return Router(primary, {"replica-1": replica}, policy=policy, pool_size=2)


async def new_readings(db: Router) -> None:
    """Wait until every node has been read from now on."""
    began = monotonic()
    await wait_until(lambda: db.view.heard_from_all(began), what="a new reading of every node")


async def end_monitors(cluster: Cluster) -> None:
    """The monitor's connections are ended: a firewall, an administrator, a blip."""
    for node in cluster.nodes.values():
        for row in await node.fetch(MONITORS):
            await node.fetchval("SELECT pg_terminate_backend($1, 1000)", row["pid"])


async def let_nobody_in(node: Node) -> str:
    """pg_hba.conf rejects everybody; what it said before."""
    rules = Path(await node.fetchval("SHOW hba_file"))
    before = rules.read_text()
    rules.write_text(f"host all app all reject\n{before}")
    await node.execute("SELECT pg_reload_conf()")
    return before


@pytest.mark.parametrize("how", REFUSALS)
async def test_a_monitor_without_a_connection_reads_over_a_pooled_one(settled: Cluster, how: str) -> None:
    """No new connection can be had, those in the pools are idle: the View stays true, and reads in flight go on."""
    async with router(settled) as db:
        await new_readings(db)
        async with db.write.begin() as one, db.write.begin() as two:
            await asyncio.gather(one.execute(text("SELECT 1")), two.execute(text("SELECT 1")))

        under_way = asyncio.Semaphore(0)

        async def read_on() -> str:
            async with db.read(snapshot=True) as session:
                await session.scalar(text("SELECT 1"))
                under_way.release()
                return str(await session.scalar(text("SELECT 'done' FROM pg_sleep(2)")))

        reading = [asyncio.create_task(read_on()) for _ in range(2)]
        for _ in reading:
            await under_way.acquire()  # both have their connection, and none is being opened
        await settled.primary.execute(REFUSALS[how])
        await settled.caught_up()
        await end_monitors(settled)
        began = monotonic()
        while not all(each.done() for each in reading):
            async with db.write() as session:
                assert await session.scalar(text("SELECT 'served'")) == "served"
            node = db.view.node("replica-1")
            assert (str(node.standing), node.cause) == ("in-rotation", None)
            await asyncio.sleep(0.02)
        assert await asyncio.gather(*reading) == ["done", "done"]
        assert monotonic() - began > 2 * QUICK.abort_after  # or nothing would have been cut off anyway
        await new_readings(db)  # over the connections that have become idle


async def test_a_silent_node_is_cut_off_all_the_same(settled: Cluster) -> None:
    """The replica answers nothing: its reads in flight end after `abort_after`."""
    async with router(settled) as db:
        await new_readings(db)
        async with db.read() as session:
            await session.scalar(text("SELECT 1"))
            waiting = asyncio.create_task(session.scalar(text("SELECT pg_sleep(60)")))
            await wait_until(lambda: db.pools["replica-1"].load() == 1, what="the read in flight")
            await settled.black_hole("replica-1")
            with pytest.raises(DBAPIError):
                await waiting
        await settled.heal()


async def test_a_node_that_lets_nobody_in_leaves_the_rotation_and_comes_back(
    settled: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    """A session was refused a new connection: the monitor's own old one proves nothing, until a new one can be had."""
    async with router(settled) as db:
        await new_readings(db)
        before = await let_nobody_in(settled.replicas[0])
        await new_readings(db)  # the monitor's own connection goes on
        assert db.view.rotation
        db._nodes.monitor.suspect("replica-1")
        await wait_until(lambda: not db.view.rotation, what="the replica to leave")
        assert db.view.node("replica-1").error == "InvalidAuthorizationSpecificationError"
        Path(await settled.replicas[0].fetchval("SHOW hba_file")).write_text(before)
        await settled.replicas[0].execute("SELECT pg_reload_conf()")
        await wait_until(lambda: db.view.rotation, what="the replica to come back")
    said = [(event_of(each), each.error) for each in caplog.records if hasattr(each, "error")]
    refused = [error for event, error in said if event == "node-unreachable"]
    assert len(refused) == 1  # once, not at each probe
    assert "28000" in refused[0]
    assert "127.0.0.1" not in refused[0]


async def test_a_primary_that_lets_nobody_in_serves_those_it_has(settled: Cluster) -> None:
    """Nobody else could: writes go on over the connections of its pool."""
    async with router(settled) as db:
        await new_readings(db)
        async with db.write.begin() as session:
            await session.execute(text("SELECT 1"))
        await let_nobody_in(settled.primary)
        db._nodes.monitor.suspect("primary")
        await new_readings(db)
        await new_readings(db)
        async with db.write.begin() as session:
            assert await session.scalar(text("SELECT 'served'")) == "served"


async def test_a_replica_that_has_closed_every_connection_is_not_believed(settled: Cluster) -> None:
    """It may come back from a crash at an earlier position: a closed connection of a session is no evidence."""
    async with router(settled) as db:
        await new_readings(db)
        async with db.read(snapshot=True) as session:
            await session.scalar(text("SELECT 1"))
            assert db.pools["replica-1"].load() == 1
            await let_nobody_in(settled.replicas[0])
            ours = "SELECT pg_terminate_backend(pid, 1000) FROM pg_stat_activity WHERE usename = 'app'"
            await settled.replicas[0].fetch(ours)
            await wait_until(lambda: db.view.node("replica-1").reading is None, what="its reading is forgotten")
            assert db.pools["replica-1"].load() == 1


async def test_waiting_for_every_replica_leaves_the_process_free(
    settled: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    """The primary refuses the monitor, and is believed: nothing can be waited for, and the event loop goes on."""
    async with router(settled) as db:
        await new_readings(db)
        async with db.write() as session:
            await session.execute(text("SELECT 1"))
            before = await let_nobody_in(settled.primary)
            await end_monitors(settled)
            await wait_until(
                lambda: any(event_of(one) == "node-refuses-connections" for one in caplog.records), what="a refusal"
            )
            watch = db._nodes.monitor._watches["primary"]
            tried = watch.tried_at
            waiting = asyncio.create_task(db.caught_up(timeout=20))
            await wait_until(lambda: watch.tried_at > tried + QUICK.probe_interval, what="it was asked in vain")
            assert not waiting.done()
            Path(await settled.primary.fetchval("SHOW hba_file")).write_text(before)
            await settled.primary.execute("SELECT pg_reload_conf()")
            assert await waiting


async def test_new_connections_that_hang(settled: Cluster) -> None:
    """Those that exist work, new ones are never answered: the replica leaves, nothing is cut off, and it comes back."""
    async with router(settled) as db:
        await new_readings(db)
        async with db.read() as session:
            await session.scalar(text("SELECT 1"))
            waiting = asyncio.create_task(session.scalar(text("SELECT 'done' FROM pg_sleep(2)")))
            settled.replicas[0].proxy._thawed.clear()
            db._nodes.monitor.suspect("replica-1")
            await wait_until(lambda: not db.view.rotation, what="the replica to leave")
            assert await waiting == "done"
        settled.replicas[0].proxy._thawed.set()
        await wait_until(lambda: db.view.rotation, what="the replica to come back")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"database": "nowhere"}, 'InvalidCatalogNameError (3D000): database "nowhere" does not exist'),
        ({"password": "wrong-one"}, "InvalidPasswordError (28P01): password authentication failed"),
        ({"query": {"sslmode": "require"}}, "TypeError: connect() got an unexpected keyword argument 'sslmode'"),
        ({"host": "unknown.invalid"}, "gaierror: "),
    ],
    ids=["database", "password", "option", "host"],
)
async def test_a_mistake_in_the_configuration_is_said_once(
    settled: Cluster, caplog: pytest.LogCaptureFixture, change: dict[str, str], says: str
) -> None:
    """At WARNING, in the server's own words, without host, port and password."""
    url = make_url(settled.primary.url).set(username="app", password="app").set(**change)  # type: ignore[arg-type]
    async with Router(url, policy=QUICK) as db:
        with pytest.raises(NoPrimary):
            async with db.write():
                pass
        warnings = [each for each in caplog.records if event_of(each) == "node-unreachable"]
        probes = db._nodes.monitor._watches["primary"]
        tried = probes.tried_at
        await wait_until(lambda: probes.tried_at > tried, what="another probe")
    assert [each.levelname for each in warnings] == ["WARNING"]
    assert warnings[0].error.startswith(says)  # type: ignore[attr-defined]
    for secret in (url.host, str(url.port), "wrong-one"):
        assert secret not in warnings[0].error  # type: ignore[attr-defined]
        assert str(secret) not in warnings[0].getMessage()
