"""What a debugger shows: the scenario in a line, and never an address or a password."""

from sqlalchemy import make_url, text
from sqlalchemy.ext.asyncio import create_async_engine

from lagwise import Causality, Policy, Replica, Router
from lagwise.testing import Cluster, wait_until
from tests.kit.routers import PATIENT, in_rotation, router, stand_still


async def test_a_router_tells_the_scenario(cluster: Cluster) -> None:
    """The primary, and each replica with its standing and staleness; before it is open, the names."""
    db = router(cluster, PATIENT)
    assert repr(db) == "<Router closed, nodes primary, replica-1, replica-2>"
    async with db:
        await in_rotation(db, "replica-1", "replica-2")
        db.drain("replica-2")
        assert repr(db).startswith("<Router primary=primary replicas=replica-1 (in-rotation, ")
        assert repr(db).endswith(" s), replica-2 (drained)>")


async def test_a_replica_that_lags_shows_by_how_much(cluster: Cluster) -> None:
    """By the Router's own bound, at the moment of asking."""
    policy = Policy(max_lag=0.2, sticky_window=5, probe_interval=0.05, probe_timeout=5)
    async with router(cluster, policy) as db:
        await stand_still(cluster)
        async with db.write.begin() as session:
            await session.execute(text("INSERT INTO item (name) VALUES ('shown')"))
        await wait_until(lambda: repr(db).count("(lagging, ") == 2, what="both to lag")


async def test_a_causality_and_its_route_tell_what_happened(cluster: Cluster) -> None:
    """What the client has seen, and where its last session went, and why."""
    async with router(cluster, PATIENT) as db:
        await in_rotation(db, "replica-1", "replica-2")
        with Causality() as seen:
            assert repr(seen) == "<Causality seen=nothing>"
            async with db.write.begin() as session:
                await session.execute(text("INSERT INTO item (name) VALUES ('shown')"))
            (position,) = seen.token
            known = f"{position.lsn} on timeline 1 of {position.system}"
            assert repr(seen) == f"<Causality seen={known} last=primary (write)>"
            assert repr(seen.routes[-1]) == "<Route primary write>"


async def test_no_address_and_no_password_is_shown(cluster: Cluster) -> None:
    """With a password in every URL and in every engine: closed, open, in use, and after an error."""
    urls = {name: make_url(node.url) for name, node in cluster.nodes.items()}
    engine, weighted = create_async_engine(urls["replica-1"]), Replica(urls["replica-2"], weight=2)
    db = Router(urls["primary"], {"replica-1": engine, "replica-2": weighted}, policy=PATIENT)
    shown = [repr(db), repr(weighted)]
    async with db:
        await in_rotation(db, "replica-1", "replica-2")
        with Causality() as seen:
            async with db.write.begin() as writing:
                await writing.execute(text("INSERT INTO item (name) VALUES ('shown')"))
                shown.append(repr(writing.info))
            async with db.read() as reading:
                await reading.execute(text("SELECT 1"))
                lease = reading.sync_session.lease  # type: ignore[attr-defined]
                shown += map(repr, (lease, lease.route, seen, reading.info))
            async with db.read.connect() as connection:
                await connection.execute(text("SELECT 1"))
                shown.append(repr(connection._routing.lease))  # type: ignore[attr-defined]
        shown += map(repr, (db, db.view, db.view.nodes, db.policy))
        await cluster.stop("replica-1")
        await wait_until(lambda: len(db.view.rotation) == 1, what="the loss")
        shown += map(repr, (db, db.view, db.view.nodes))
    await engine.dispose()
    assert all(url.password for url in urls.values())
    hidden = {"postgresql+asyncpg", *(str(part) for url in urls.values() for part in (url.password, url.host))}
    hidden |= {f":{url.port}" for url in urls.values()}
    assert [line for line in shown for word in hidden if word in line] == []
    assert "\n" not in "".join(shown)
