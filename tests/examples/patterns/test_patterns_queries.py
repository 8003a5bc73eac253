"""Bulk writes and what follows them, pages, heavier reads, soft delete; and what an operator watches."""

import asyncio
import logging

import pytest
from sqlalchemy import Pool, event, text

from lagwise.testing import Cluster
from tests.kit.patterns import LAG, address, by_replica, running


async def test_bulk_statements_are_writes(lagging: Cluster) -> None:
    """After each of them its client reads what it did: rows inserted, updated, upserted, copied and deleted."""
    from examples.patterns import bulk

    emails = sorted(address() for _ in range(3))
    async with running(bulk.app) as connect, connect() as http:

        async def names() -> list[str]:
            found: list[str] = (await http.post("/people/names", json=emails)).json()
            return found

        assert len((await http.post("/people", json=emails)).json()) == 3
        assert await names() == ["", "", ""]
        assert (await http.put("/people", params={"name": "Ann"}, json=emails)).json() == 3
        assert await names() == ["Ann", "Ann", "Ann"]
        assert (await http.put(f"/people/{emails[0].upper()}", params={"name": "Bob"})).json() == "Bob"
        assert await names() == ["Bob", "Ann", "Ann"]
        removed = await http.request("DELETE", "/people", json=emails)
        assert sorted(removed.json()) == emails
        assert await names() == []
        assert (await http.post("/people/copy", json=emails)).status_code == 201
        assert await names() == ["copied"] * 3


async def test_pages_never_go_backwards(lagging: Cluster) -> None:
    """A client that reloads a list while rows come in loses none it has seen, though one replica stands still.

    Who takes the replicas in turn does lose some.
    """
    from examples.patterns import pagination

    name, insert = address(), "INSERT INTO users (id, email, name, balance) VALUES (gen_random_uuid(), $1, $2, 0)"
    try:
        async with running(pagination.app) as connect, connect() as http:
            await lagging.caught_up()
            await lagging.pause_replay("replica-1")
            await lagging.set_apply_delay("replica-2", 0)
            seen: set[str] = set()
            counts: list[int] = []
            for turn in range(12):
                await lagging.primary.execute(insert, address(), name)
                node = lagging.replicas[turn % 2]
                counts.append(await node.fetchval("SELECT count(*) FROM users WHERE name = $1", name))
                page = (await http.get("/by-offset", params={"name": name, "size": 100})).json()
                now = {user["id"] for user in page}
                assert seen <= now
                seen = now
            assert counts != sorted(counts)
    finally:
        await lagging.resume_replay("replica-1")
        await lagging.set_apply_delay("replica-2", LAG)


async def test_keyset_pages_meet_every_row_once(lagging: Cluster) -> None:
    """Rows that come in at the front while a client pages neither repeat nor hide what was there."""
    from examples.patterns import pagination

    name = address()
    insert = """INSERT INTO users (id, email, name, balance, created_at)
                SELECT gen_random_uuid(), gen_random_uuid()::text, $1, 0, now() - make_interval(secs => n)
                FROM generate_series(0, 9) AS n"""
    await lagging.primary.execute(insert, name)
    there = {str(row[0]) for row in await lagging.primary.fetch("SELECT id FROM users WHERE name = $1", name)}
    await lagging.caught_up()
    async with running(pagination.app) as connect, connect() as http:
        paged: list[str] = []
        where: dict[str, str] = {}
        while page := (await http.get("/by-keyset", params={"name": name, "size": "3"} | where)).json():
            paged += [user["id"] for user in page]
            where = {"before": page[-1]["created_at"], "before_id": page[-1]["id"]}
            await lagging.primary.execute(insert.replace("now() -", "now() + interval '1 hour' -"), name)
        assert (set(paged), len(paged)) == (there, 10)


async def test_heavier_reads(lagging: Cluster) -> None:
    """Ranks, existence, a page with its count and a search: right just after the write, and then on a replica."""
    from examples.patterns import queries

    email = address()
    answers = {
        f"/ranking/{email}": [["c", 1], ["a", 2], ["b", 2]],
        f"/has-posts/{email}": True,
        f"/page/{email}": {"total": 3, "titles": ["a", "b"]},
        f"/search?text={email[:20].upper()}": [email],
    }
    async with running(queries.app) as connect, connect() as http, connect() as another:
        assert (await http.post("/posts", params={"email": email}, json={"a": 1, "b": 1, "c": 5})).status_code == 201
        for path, expected in answers.items():
            assert (await http.get(path)).json() == expected
        await lagging.caught_up()
        for path, expected in answers.items():
            read = await another.get(path)
            assert (read.json(), by_replica(read)) == (expected, True)


async def test_soft_delete(lagging: Cluster) -> None:
    """A deleted user is gone for its client at once, the row stays, and the address is free again."""
    from examples.patterns import soft_delete

    email = address()
    async with running(soft_delete.app) as connect, connect() as http:
        assert (await http.put(f"/users/{email}")).status_code == 200
        assert (await http.put(f"/users/{email.upper()}")).status_code == 409
        assert (await http.patch(f"/users/{email}", params={"name": "Ann"})).json() is True
        assert len((await http.get(f"/users/{email}")).json()) == 1
        assert (await http.delete(f"/users/{email}")).status_code == 200
        assert (await http.get(f"/users/{email}")).json() == []
        assert (await http.put(f"/users/{email}")).status_code == 200
        assert await lagging.primary.fetchval("SELECT count(*) FROM users WHERE email = $1", email) == 2


async def test_what_an_operator_looks_at(lagging: Cluster, caplog: pytest.LogCaptureFixture) -> None:
    """Pool statistics and health without a query, each new connection in the log, each node that changes as well."""
    from examples.patterns import operations

    caplog.set_level(logging.INFO, "shop.database")
    try:
        async with running(operations.app) as connect, connect() as http:
            async with operations.db.read() as session:
                await session.scalar(text("SELECT 1"))
                node = session.info["lagwise.route"].node
            stats = (await http.get("/admin/pools")).json()
            assert stats["pools"][node]["reading"]["opened"] >= 1
            answers = await asyncio.gather(*(http.get(f"/health/{name}") for name in ("live", "ready", "pools")))
            assert [answer.status_code for answer in answers] == [200, 200, 200]
            operations.db.drain("replica-1")
            assert (await http.get("/health/ready")).status_code == 200
    finally:
        event.remove(Pool, "connect", operations.connected)
    assert "a connection was opened" in caplog.messages
