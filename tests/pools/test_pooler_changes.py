"""A PgBouncer whose mode is changed while the application runs: it is noticed, and no session goes on as if not."""

from collections.abc import AsyncIterator
from time import monotonic
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from lagwise import Router, RoutingError
from lagwise._pools import pooler
from lagwise.testing import Cluster, wait_until
from tests.kit.bouncer import Bouncer, bouncer
from tests.kit.routers import PATIENT, in_rotation

NAMES = ("primary", "replica-1")
FENCED = text("SELECT current_setting('default_transaction_read_only') = 'on'")


@pytest.fixture
async def before(cluster: Cluster) -> AsyncIterator[Bouncer]:
    """A PgBouncer in session mode."""
    async with bouncer(cluster, mode="session") as made:
        yield made


async def read(db: Router, *, primary: bool = False) -> Any:
    async with db.read(primary=primary) as session:
        return await session.scalar(FENCED)


def kinds(db: Router) -> set[str]:
    """What each node's last probe has met."""
    return {str(node.cause.kind) if node.cause is not None else "" for node in map(db.view.node, NAMES)}


async def all_found(db: Router) -> list[Exception]:
    """Read from every node until each has left the rotation; the errors that the readers met."""
    met: list[Exception] = []

    async def found() -> bool:
        for primary in (False, True):
            try:
                await read(db, primary=primary)
            except Exception as error:
                met.append(error)
        return kinds(db) == {"transaction-pooler"}

    await wait_until(found, what="every node is known to be behind a pooler in transaction mode")
    return met


async def test_transaction_mode_is_noticed_while_it_runs(before: Bouncer) -> None:
    """Every node leaves the rotation with the reason and the remedy; what its readers meet is lagwise's own error."""
    async with before.router(PATIENT, pool_size=2) as db:
        await in_rotation(db, "replica-1")
        for _ in range(4):
            assert (await read(db), await read(db, primary=True)) == (True, True)
        await before.switch("transaction")
        met = await all_found(db)
        assert [error for error in met if not isinstance(error, RoutingError)] == []
        with pytest.raises(RoutingError, match='pooling="transaction"'):
            await read(db)
        with pytest.raises(RoutingError, match='pooling="transaction"'):
            async with db.write() as session:
                await session.scalar(text("SELECT 1"))


async def test_session_mode_comes_back(before: Bouncer) -> None:
    """The nodes are used again, over new connections: the fence of the older ones is in servers of other clients."""
    async with before.router(PATIENT, pool_size=2) as db:
        await in_rotation(db, "replica-1")
        await read(db)
        await before.switch("transaction")
        await all_found(db)
        await before.switch("session")
        await wait_until(lambda: kinds(db) == {""}, what="every node is read again")
        await in_rotation(db, "replica-1")
        for _ in range(6):
            assert (await read(db), await read(db, primary=True)) == (True, True)


async def test_what_is_believed_ends_with_time(before: Bouncer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new connection looks again after a while, although no statement has failed, and before it is used."""
    async with before.router(PATIENT, pool_size=2) as db:
        await in_rotation(db, "replica-1")
        for pools in db.pools.values():
            await pools.reading.dispose()
        await before.switch("transaction")
        later = monotonic() + 2 * pooler._BELIEVED
        monkeypatch.setattr(pooler, "monotonic", lambda: later)
        for primary in (False, True):
            with pytest.raises(RoutingError):
                await read(db, primary=primary)
        for name in NAMES:
            assert {server["fence"] for server in await before.all_servers(name)} == {"off"}


async def test_a_statement_of_the_callers_that_is_not_there(before: Bouncer) -> None:
    """EXECUTE of what was never prepared fails with the same SQLSTATE: the error is the caller's, the node stays."""
    async with before.router(PATIENT, pool_size=2) as db:
        await in_rotation(db, "replica-1")
        with pytest.raises(DBAPIError, match="absent"):
            async with db.read() as session:
                await session.execute(text("EXECUTE absent"))
        assert await read(db)
        assert kinds(db) == {""}
