"""Limits for statements, bookkeeping, clients without cookies, tests that roll back, and a pooler in between."""

from collections.abc import AsyncIterator, Callable

import pytest
from httpx import AsyncClient
from sqlalchemy import text

from lagwise.testing import Cluster
from tests.kit.bouncer import bouncer
from tests.kit.patterns import address, by_replica, node_of, running


async def test_a_slow_statement_ends_and_its_connection_does_not_suffer(lagging: Cluster) -> None:
    """504 in place of a hung request; the replica stays in rotation, and the next statement has no other limit."""
    from examples.patterns import time_limits
    from examples.patterns.database import db

    async with running(time_limits.app) as connect, connect() as http:
        for _ in range(3):
            assert (await http.get("/report", params={"seconds": 30})).status_code == 504
            answered = await http.get("/users")
            assert (answered.status_code, by_replica(answered)) == (200, True)
        assert (await http.get("/report", params={"seconds": 0})).json() == "done"
        async with db.read() as session:
            assert await session.scalar(text("SELECT current_setting('statement_timeout')")) == "0"
    sleeping = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep%' AND pid <> pg_backend_pid() "
    for node in lagging.nodes.values():
        assert await node.fetchval(sleeping + "AND state = 'active'") == 0


async def test_a_visitors_stamps_leave_its_reads_on_replicas(lagging: Cluster) -> None:
    """Each GET writes, and no answer brings a token; a write of its own does."""
    from examples.patterns import last_seen

    async with running(last_seen.app) as connect, connect() as http, connect() as visitor:
        made = await http.post("/users", params={"email": (email := address())})
        path = f"/users/{made.json()}"
        assert "lagwise-token" in made.headers
        assert (await http.get(path)).json() == email
        await lagging.caught_up()
        for _ in range(4):
            answered = await visitor.get(path)
            assert (answered.status_code, "lagwise-token" in answered.headers) == (200, False)
            assert answered.headers["lagwise-route"].count("replica") == 1
    stamp = "SELECT updated_at > created_at FROM users WHERE email = $1"
    assert await lagging.primary.fetchval(stamp, email)


async def test_clients_of_one_key_see_each_others_writes(lagging: Cluster) -> None:
    """Without a cookie, at once. A client of another key may read from a replica, and so miss it."""
    from examples.patterns import api_keys

    async with running(api_keys.app) as connect:
        for turn in range(5):
            async with connect() as writer, connect() as other:
                mine = {"X-API-Key": f"key {turn}"}
                made = (await writer.post("/users", params={"email": (email := address())}, headers=mine)).json()
                read = await other.get(f"/users/{made}", headers=mine)
                assert (read.status_code, read.json()) == (200, email)


@pytest.fixture
async def client(lagging: Cluster) -> AsyncIterator[AsyncClient]:
    """The example's fixture, imported once the environment is there that its modules read."""
    from examples.patterns import transaction_per_test

    fixture: Callable[[], AsyncIterator[AsyncClient]] = transaction_per_test.client.__wrapped__  # type: ignore[attr-defined]
    async for each in fixture():
        yield each


async def test_each_test_finds_the_tables_as_they_were(lagging: Cluster, client: AsyncClient) -> None:
    """What the application committed is seen by its reads, and not by other connections."""
    made = await client.post("/users", params={"email": (email := address())})
    assert (made.status_code, node_of(made)) == (201, "primary")
    assert (await client.get(f"/users/{made.json()}")).json() == email
    assert await lagging.primary.fetchval("SELECT count(*) FROM users WHERE email = $1", email) == 0
    assert "lagwise-token" not in made.headers


async def test_behind_pgbouncer(lagging: Cluster) -> None:
    """Own writes are found, and no server connection keeps anything."""
    from examples.patterns import behind_pgbouncer

    async with bouncer(lagging) as pooler:
        primary, *replicas = pooler.urls.values()
        async with behind_pgbouncer.router(primary, replicas) as db:
            for _ in range(10):
                _, found = await behind_pgbouncer.register(db, address())
                assert found
        for name in lagging.nodes:
            assert {(state["fence"], state["prepared"]) for state in await pooler.all_servers(name)} == {("off", 0)}
