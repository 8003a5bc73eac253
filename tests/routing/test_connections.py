"""Connections without a session, SQLAlchemy Core's and asyncpg's own: the promises of sessions, at their price."""

import asyncio
import itertools
from collections.abc import AsyncIterator

import asyncpg  # type: ignore[import-untyped]
import pytest
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from lagwise import Causality, NoReplica, NotOpen, Policy, ReadOnly, Router
from lagwise.testing import Cluster

from .conftest import in_rotation, router
from .lent import KINDS, busy, count, on_replica, reading, write
from .test_overtaken import PATIENT, both, let_go, stand_still
from .test_round_trips import MANY, quiet, trips
from .test_session_state import CLEAN, LONG, STATE, TRACES

pytestmark = pytest.mark.parametrize("kind", KINDS)
WRITES = {
    "insert": "INSERT INTO item (name) VALUES ('forbidden')",
    "DML in a CTE": "WITH made AS (INSERT INTO item (name) VALUES ('forbidden') RETURNING id) SELECT id FROM made",
    "for update": "SELECT id FROM item FOR UPDATE",
    "DDL": "CREATE TABLE forbidden (id int)",
    "nextval": "SELECT nextval('item_id_seq')",
}


@pytest.fixture
async def still(cluster: Cluster) -> AsyncIterator[Router]:
    """A Router whose replicas show what there was, and nothing that comes."""
    async with router(cluster, PATIENT) as db:
        await both(db)
        await stand_still(cluster)
        yield db


async def test_a_read_is_one_round_trip(cluster: Cluster, kind: str) -> None:
    """One SELECT: 1 trip, with a token that a replica has reached too; on the primary 3."""
    async with quiet(cluster) as db:
        with Causality() as seen:
            await write(db, "read me")
            await cluster.caught_up()

            async def read(times: int, *, primary: bool = False) -> int:
                before = trips(cluster)
                for _ in range(times):
                    async with reading(db, kind, primary=primary) as ask:
                        assert await count(ask, "read me") >= 1
                return trips(cluster) - before

            await read(4 * MANY)  # warm: connections are open, statements prepared
            assert await read(MANY) == MANY
            assert seen.routes[-1].startswith("replica-")
            await read(4, primary=True)
            assert await read(MANY, primary=True) == 3 * MANY


async def test_a_client_reads_its_write(cluster: Cluster, still: Router, kind: str) -> None:
    """Replay stands still: the client's own write is there; without its token it is missed, on a replica."""
    name = f"own {kind}"
    with Causality() as seen:
        await write(still, name)
        async with reading(still, kind) as ask:
            assert await count(ask, name) == 1
    with Causality(str(seen.token)):
        async with reading(still, kind) as ask:
            assert await count(ask, name) == 1
    async with reading(still, kind) as ask:
        assert (await count(ask, name), await on_replica(ask)) == (0, True)


async def test_options_are_those_of_sessions(still: Router, kind: str) -> None:
    """The primary on request, a bound of its own, and values that make no sense refused at once."""
    async with reading(still, kind, primary=True) as ask:
        assert not await on_replica(ask)
    async with reading(still, kind, max_staleness=50) as ask:
        assert await on_replica(ask)
    with pytest.raises(ValueError, match="max_staleness"):
        async with reading(still, kind, max_staleness=-1):
            pass


@pytest.mark.parametrize("sql", WRITES.values(), ids=WRITES)
@pytest.mark.parametrize("where", ["replica", "primary", "snapshot", "no replicas"])
async def test_a_write_is_refused(cluster: Cluster, db: Router, kind: str, where: str, sql: str) -> None:
    """`ReadOnly`, which names the node and the way out, wherever the read lands; nothing was written."""
    async with Router(cluster.primary.url) as alone:
        options = {"primary": where == "primary", "snapshot": where == "snapshot"}
        with pytest.raises(ReadOnly, match=r"on (primary|replica-\d) .*db\.write") as caught:
            async with reading(alone if where == "no replicas" else db, kind, **options) as ask:
                await ask(sql)
        assert getattr(caught.value.__cause__, "sqlstate", None) is not None
    assert await cluster.primary.fetchval("SELECT count(*) FROM item WHERE name = 'forbidden'") == 0


async def test_a_promoted_replica_still_refuses_writes(kind: str) -> None:
    """Between a promotion and its discovery the fence holds, on pooled connections and on new ones."""
    async with Cluster(replicas=1) as own:
        await own.primary.execute("CREATE TABLE item (id serial PRIMARY KEY, name text)")
        await own.caught_up()
        async with Router(own.primary.url, [own.replicas[0].url], policy=LONG, pool_size=2) as db:
            await in_rotation(db, "replica-1")
            async with reading(db, kind) as ask:
                assert await on_replica(ask)
            await own.promote("replica-1")
            async with reading(db, kind) as one, reading(db, kind) as two:
                for ask in (one, two):
                    with pytest.raises(ReadOnly, match="replica-1"):
                        await ask(WRITES["insert"])
        assert await own["replica-1"].fetchval("SELECT count(*) FROM item") == 0


@pytest.mark.parametrize("where", ["on a replica", "on the primary", "an engine", "an engine without a pool"])
async def test_nothing_leaks_to_the_next(cluster: Cluster, kind: str, where: str) -> None:
    """120 interleaved uses of 3 connections, each leaving something behind: the next finds nothing."""
    url, given = cluster.replicas[0].url, None
    if "engine" in where:
        given = create_async_engine(url, poolclass=NullPool) if "without" in where else create_async_engine(url)
    replicas: list[str | AsyncEngine] = [] if where == "on the primary" else [given if given is not None else url]
    kinds = itertools.cycle(TRACES.values())
    async with Router(cluster.primary.url, replicas, policy=LONG, pool_size=3) as db:
        await in_rotation(db, *["replica-1"][: len(replicas)])

        async def one(number: int) -> tuple[object, ...]:
            async with reading(db, kind) as ask:
                found = await ask(f"SELECT ROW(s.*) FROM ({STATE}) AS s")
                await ask(next(kinds).format(n=number))
                return tuple(found)

        assert {CLEAN[:-1]} == set(await asyncio.gather(*map(one, range(120))))
        async with reading(db, kind) as ask:
            times = {await ask("SELECT now()") for _ in range(2)}
        assert (len(times), busy(db)) == (2 if replicas else 1, 0)  # nobody's BEGIN is still open
    if given is not None:
        await given.dispose()


@pytest.mark.parametrize("used", [False, True], ids=["unused", "used"])
async def test_an_overtaken_read_moves(cluster: Cluster, still: Router, kind: str, used: bool) -> None:
    """Open while its client writes: its next statement is answered where the write is, and it stays read-only."""
    name = f"overtaken {kind} {used}"
    with Causality():
        async with reading(still, kind) as ask:
            if used:
                assert (await count(ask, name), await on_replica(ask)) == (0, True)
            await write(still, name)
            assert (await count(ask, name), await on_replica(ask)) == (1, False)
            assert await ask("SELECT current_setting('transaction_read_only')") == "on"
    assert busy(still) == 0


async def test_it_stays_where_the_write_is_already(cluster: Cluster, still: Router, kind: str) -> None:
    """A replica that has replayed the write goes on serving."""
    name = f"replayed {kind}"
    with Causality():
        async with reading(still, kind) as ask:
            await on_replica(ask)
            await write(still, name)
            await let_go(cluster, still)
            assert (await count(ask, name), await on_replica(ask)) == (1, True)


@pytest.mark.parametrize("first", [False, True], ids=["taken", "not taken yet"])
async def test_a_snapshot_stays_once_it_is_taken(still: Router, kind: str, first: bool) -> None:
    """What was asked for is one moment, that of the first statement: which has the client's writes."""
    name = f"snapshot {kind} {first}"
    with Causality():
        async with reading(still, kind, snapshot=True) as ask:
            if not first:
                assert await count(ask, name) == 0
            await write(still, name)
            assert await count(ask, name) == int(first)


async def test_one_that_cannot_move_goes_on_when_it_can(cluster: Cluster, kind: str) -> None:
    """fall_back=False: `NoReplica` while no replica has the write; the same connection goes on when one does."""
    policy = Policy(max_lag=60, sticky_window=60, catch_up=0, fall_back=False)
    async with router(cluster, policy) as db:
        await both(db)
        await stand_still(cluster)
        name = f"kept off {kind}"
        with Causality():
            async with reading(db, kind) as ask:
                await on_replica(ask)
                await write(db, name)
                for _ in range(2):
                    with pytest.raises(NoReplica):
                        await count(ask, name)
                await let_go(cluster, db)
                assert await count(ask, name) == 1
        assert busy(db) == 0


async def test_what_was_read_is_remembered(cluster: Cluster, kind: str) -> None:
    """guarantee="session": a later read is not older than what this one has shown."""
    policy = Policy(max_lag=60, sticky_window=60, catch_up=0, guarantee="session", probe_timeout=5)
    async with router(cluster, policy) as db:
        await both(db)
        await stand_still(cluster)
        await write(db, f"remembered {kind}")
        with Causality() as seen:
            async with reading(db, kind):
                pass
            assert not seen.grew
            async with reading(db, kind, primary=True) as ask:
                assert await count(ask, f"remembered {kind}") == 1
            async with reading(db, kind) as ask:
                assert await count(ask, f"remembered {kind}") == 1


async def test_a_full_pool_and_a_place_on_the_primary(cluster: Cluster, kind: str) -> None:
    """The named error of a full pool; a read that could not begin gives its place in the fall-back budget back."""
    policy = Policy(probe_interval=60, probe_timeout=5, max_lag=120, sticky_window=120, fall_back_limit=2)
    async with router(cluster, policy, pool_size=1, pool_timeout=0.05) as db:
        for replica in cluster.replicas:
            db.drain(replica.name)
        async with reading(db, kind) as ask:
            await ask("SELECT 1")
            for _ in range(3):
                with pytest.raises(PoolTimeout, match="no connection to primary became free in time: 1 of 1"):
                    async with reading(db, kind):
                        pass
        async with reading(db, kind) as ask:
            await ask("SELECT 1")


async def test_a_router_that_is_closed_first(cluster: Cluster, kind: str) -> None:
    """Whoever holds a connection meanwhile ends without an error; afterwards nobody gets one."""
    db = router(cluster)
    async with db:
        holding = reading(db, kind)
        ask = await holding.__aenter__()
        await ask("SELECT 1")
    await holding.__aexit__(None, None, None)
    with pytest.raises(NotOpen):
        async with reading(db, kind):
            pass


async def test_a_statement_that_is_wrong_is_the_callers(cluster: Cluster, db: Router, kind: str) -> None:
    """The database's own error, as SQLAlchemy or asyncpg raise it, and nothing is tried elsewhere."""
    with Causality() as seen:
        async with reading(db, kind) as ask:
            with pytest.raises((asyncpg.PostgresError, SQLAlchemyError), match="nowhere"):
                await ask("SELECT * FROM nowhere")
            with pytest.raises((asyncpg.DataError, SQLAlchemyError), match="query argument"):
                await ask("SELECT id FROM item WHERE id = $1", "no number")
        assert len(seen.routes) == 1
    for replica in cluster.replicas:
        held = "SELECT count(*) FROM pg_locks WHERE relation = 'item'::regclass"
        assert await replica.fetchval(held) == 0  # of the transaction that asyncpg does not know of
