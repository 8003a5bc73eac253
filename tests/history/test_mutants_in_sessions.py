"""The mutation suite for what happens inside sessions: transactions, settings, rest, and nested causalities."""

from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from lagwise import Causality
from lagwise.testing import Cluster
from lagwise.testing.history import SESSION, History, Recorder, Violation

from . import mutants
from .clients import Client, pause, paused_at_the_primarys_position, routed
from .judging import BOTH, convicted, mutate

pytestmark = pytest.mark.usefixtures("register")

# Each client is a tenant: the role sees the entries of one, the superuser those of all.
ROW_SECURITY = """
CREATE ROLE tenant;
GRANT SELECT ON entry TO tenant;
CREATE POLICY own ON entry TO tenant USING (value LIKE current_setting('app.tenant') || '-%');
ALTER TABLE entry ENABLE ROW LEVEL SECURITY;
"""
NEWEST = text("""
SELECT timeline, number, value, current_setting('cluster_name') AS node
FROM (SELECT 1) AS always
LEFT JOIN LATERAL (SELECT * FROM entry WHERE key = :key ORDER BY number DESC LIMIT 1) AS newest ON true
""")


def own_rows(history: History) -> list[Violation]:
    """A tenant is shown its own rows, and nothing of another's."""
    return [
        Violation("own-rows", op.client, (op,), "this row is another tenant's")
        for op in history.operations
        if op.kind == "read" and op.value is not None and not op.value.startswith(f"{op.client}-")
    ]


@pytest.fixture
async def tenants(register: None, cluster: Cluster) -> AsyncIterator[None]:
    """Row security on the entries."""
    await cluster.primary.execute(ROW_SECURITY)
    yield
    await cluster.primary.execute(
        "ALTER TABLE entry DISABLE ROW LEVEL SECURITY; DROP POLICY own ON entry; DROP OWNED BY tenant; DROP ROLE tenant"
    )


async def newest(session: AsyncSession, key: str) -> dict[str, Any]:
    """The newest entry that the tenant may see."""
    return dict((await session.execute(NEWEST, {"key": key})).mappings().one())


async def newest_by_local(session: AsyncSession, key: str, *, tenant: str) -> dict[str, Any]:
    """Likewise; the tenant is set for the transaction, as row security is used."""
    await session.execute(text("SELECT set_config('app.tenant', :tenant, true)"), {"tenant": tenant})
    await session.execute(text("SET LOCAL ROLE tenant"))
    return await newest(session, key)


@BOTH
@pytest.mark.usefixtures("tenants")
async def test_local_without_a_transaction(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, key: str, bad: bool
) -> None:
    """SET LOCAL means in a read session what it means on the primary: another tenant's rows stay hidden."""
    mutate(monkeypatch, mutants.local_without_a_transaction, bad)
    ann = Client("ann", Recorder())
    bob = Client("bob", ann.recorder)
    async with routed(cluster) as db:
        await ann.write(db, key)
        await bob.write(db, key)
        await cluster.caught_up()
        async with db.read() as session:
            shown = await ann.read_in(session, key, partial(newest_by_local, tenant="ann"))
    assert "replica" in f"{shown.node}"
    assert convicted(ann.recorder, *SESSION, own_rows) == ({"own-rows"} if bad else set())


@BOTH
@pytest.mark.usefixtures("tenants")
async def test_settings_move_silently(cluster: Cluster, monkeypatch: pytest.MonkeyPatch, key: str, bad: bool) -> None:
    """A session that has set its tenant is not moved to where the tenant is not set: it is refused by name."""
    mutate(monkeypatch, mutants.settings_move_silently, bad)
    ann = Client("ann", Recorder())
    bob = Client("bob", ann.recorder)
    async with routed(cluster) as db:
        await ann.write(db, key)
        await bob.write(db, key)
        await cluster.caught_up()
        await pause(cluster)
        with Causality(None):  # no write of hers is among what this request brought
            async with db.read() as session:
                await session.execute(text("SELECT set_config('app.tenant', 'ann', false)"))
                await session.execute(text("SET ROLE tenant"))
                await ann.read_in(session, key, newest)
                async with db.write.begin() as writing:
                    await writing.execute(text("SELECT pg_logical_emit_message(true, 'test', 'overtakes')"))
                await ann.read_in(session, key, newest)
    assert convicted(ann.recorder, *SESSION, own_rows) == ({"own-rows"} if bad else set())
    assert [op.error for op in ann.recorder.operations if op.kind == "read"] == [None, None if bad else "NoReplica"]


@BOTH
async def test_rested_goes_on_unconfirmed(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, key: str, bad: bool
) -> None:
    """Between two statements a plain read has no connection: the next one must show what was written meanwhile."""
    mutate(monkeypatch, mutants.rested_goes_on_unconfirmed, bad)
    ann = Client("ann", Recorder())
    async with routed(cluster) as db:
        await paused_at_the_primarys_position(cluster, db)
        with Causality(None):
            async with db.read() as session:
                await ann.read_in(session, key)
                await ann.write(db, key)
                await ann.read_in(session, key)
    assert convicted(ann.recorder) == ({"read-your-writes"} if bad else set())


@BOTH
async def test_inner_grows_alone(cluster: Cluster, monkeypatch: pytest.MonkeyPatch, key: str, bad: bool) -> None:
    """What was written inside of an inner causality is seen by the reads of the outer one."""
    mutate(monkeypatch, mutants.inner_grows_alone, bad)
    ann = Client("ann", Recorder())
    async with routed(cluster) as db:
        await paused_at_the_primarys_position(cluster, db)
        with Causality(None):
            await ann.write(db, key)  # in a causality of its own
            async with db.read() as session:
                await ann.read_in(session, key)
    assert convicted(ann.recorder) == ({"read-your-writes"} if bad else set())
