"""Before the catalog has been read, nothing is believed of the database."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from sqlalchemy import text

from lagwise import Policy, Router
from lagwise._decide.catalog import UNREAD
from lagwise._decide.effect import Effect
from lagwise._decide.statement import effects_of
from lagwise.testing import Cluster

SETUP = """
CREATE SCHEMA unread;
CREATE FUNCTION unread.become(text) RETURNS text LANGUAGE sql AS $$ SELECT set_config('lagwise.tenant', $1, false) $$;
CREATE FUNCTION unread.watch() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN PERFORM unread.become('red'); RETURN NEW; END $$;
CREATE VIEW unread.entered AS SELECT unread.become('red') AS name;
CREATE TABLE unread.filled (id int, name text DEFAULT unread.become('red'));
CREATE TABLE unread.watched (id int);
CREATE TRIGGER watching BEFORE INSERT ON unread.watched FOR EACH ROW EXECUTE FUNCTION unread.watch();
"""
READS = {
    "a view": "SELECT * FROM unread.entered",
    "a name of the application's": "SELECT unread.become('red')",
}
WRITES = {
    "a default": "INSERT INTO unread.filled (id) VALUES (1)",
    "a trigger": "INSERT INTO unread.watched VALUES (1)",
}
TENANT = text("SELECT current_setting('lagwise.tenant', true)")


@pytest.fixture(scope="module")
async def described(running: Cluster) -> AsyncIterator[Cluster]:
    """A database that runs code wherever no name in a statement tells of it."""
    await running.primary.execute(SETUP)
    yield running
    await running.primary.execute("DROP SCHEMA unread CASCADE")


@asynccontextmanager
async def unread(cluster: Cluster) -> AsyncIterator[Router]:
    """A Router that cannot read the catalog: a table of it is locked. Its sessions take one connection in turn."""
    async with cluster.primary.connect() as locking:
        await locking.execute("BEGIN; LOCK TABLE pg_catalog.pg_range IN ACCESS EXCLUSIVE MODE")
        async with Router(cluster.primary.url, policy=Policy(probe_timeout=0.5), pool_size=1, max_overflow=0) as db:
            yield db
            assert db._nodes.monitor.catalog is UNREAD
        await locking.execute("ROLLBACK")


async def test_the_next_session_finds_nothing_of_what_was_not_seen(described: Cluster) -> None:
    """Views, triggers and defaults leave a setting; the next session of another client has the server's own."""
    async with unread(described) as db:
        for what, sql in READS.items():
            async with db.read() as session:
                await session.execute(text(sql))
            async with db.read() as session:
                assert not await session.scalar(TENANT), what
        for what, sql in WRITES.items():
            async with db.write.begin() as session:
                await session.execute(text(sql))
            async with db.write() as session:
                assert not await session.scalar(TENANT), what


async def test_opening_a_router_waits_for_the_catalog(described: Cluster) -> None:
    """The first session is judged by it; a Router that was open before does not believe what it knew then."""
    db = Router(described.primary.url, pool_size=1)
    for _ in range(2):
        async with db:
            catalog = db._nodes.monitor.catalog
            assert catalog is not UNREAD
            assert {pools.traffic.catalog for pools in db.pools.values()} == {catalog}
            assert effects_of("SELECT * FROM unread.entered", catalog) == Effect.OPAQUE
            assert effects_of("SELECT id FROM item", catalog) is Effect.NOTHING
