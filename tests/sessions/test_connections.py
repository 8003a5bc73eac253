"""Connections without a session, SQLAlchemy Core's and asyncpg's own: the promises of sessions, at their price."""

import pytest

from lagwise import Causality, NoReplica, Policy, ReadOnly, Router
from lagwise.testing import Cluster
from tests.kit.connections import KINDS, count, on_replica, reading, write
from tests.kit.routers import LONG, MANY, both_in_rotation, busy, in_rotation, let_go, quiet, router, stand_still, trips

pytestmark = pytest.mark.parametrize("kind", KINDS)
WRITES = {
    "insert": "INSERT INTO item (name) VALUES ('forbidden')",
    "DML in a CTE": "WITH made AS (INSERT INTO item (name) VALUES ('forbidden') RETURNING id) SELECT id FROM made",
    "for update": "SELECT id FROM item FOR UPDATE",
    "DDL": "CREATE TABLE forbidden (id int)",
    "nextval": "SELECT nextval('item_id_seq')",
}


async def test_a_read_is_one_round_trip(cluster: Cluster, kind: str) -> None:
    """One SELECT: 1 trip, with a token that a replica has reached too, and on the primary."""
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
            assert seen.routes[-1].on_replica
            await read(4, primary=True)
            assert await read(MANY, primary=True) == MANY


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
        await both_in_rotation(db)
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
        await both_in_rotation(db)
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
