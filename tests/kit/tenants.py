"""Twenty tenants behind row security and in schemas of their own, and the ways in which requests say whose they are."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import event, make_url, text
from sqlalchemy.orm import Session

from lagwise import Router
from lagwise.testing import Cluster

TENANTS = [f"t{number}" for number in range(20)]
ROLE, _SECRET = "web", "for tests only"
DOCS = "SELECT tenant FROM doc"
MINE = "SELECT tenant FROM mine"
# Without a tenant everything is seen: the mistake that row security is there to prevent.
_SETUP = f"""
CREATE ROLE {ROLE} LOGIN PASSWORD '{_SECRET}';
GRANT pg_monitor TO {ROLE};
CREATE TABLE doc (tenant text);
INSERT INTO doc SELECT 't' || n FROM generate_series(0, 19) AS n;
GRANT SELECT, INSERT ON doc TO {ROLE};
ALTER TABLE doc ENABLE ROW LEVEL SECURITY;
CREATE POLICY every ON doc USING (coalesce(current_setting('app.tenant', true), '') IN ('', tenant));
CREATE TABLE mine (tenant text);
INSERT INTO mine VALUES ('no tenant');
GRANT SELECT ON mine TO {ROLE};
CREATE FUNCTION become(who text) RETURNS void LANGUAGE plpgsql VOLATILE AS
  $$ BEGIN PERFORM set_config('app.tenant', who, true); END $$;
CREATE TABLE word (who text);
GRANT SELECT, INSERT ON word TO {ROLE};
"""
_SCHEMA = """
CREATE SCHEMA {0};
CREATE TABLE {0}.mine (tenant text);
INSERT INTO {0}.mine VALUES ('{0}');
GRANT USAGE ON SCHEMA {0} TO web;
GRANT SELECT ON {0}.mine TO web
"""


async def settle_tenants(cluster: Cluster) -> None:
    """The tables, functions and roles of the tenants, on every node."""
    await cluster.primary.execute(_SETUP)
    await cluster.primary.execute("; ".join(_SCHEMA.format(tenant) for tenant in TENANTS))
    await cluster.caught_up()


def as_web(url: str) -> str:
    """The URL with the role that row security binds."""
    return make_url(url).set(username=ROLE, password=_SECRET).render_as_string(hide_password=False)


class TenantSession(Session):
    """Says at the beginning of each transaction whose it is: `info["tenant"]`, in the way of `info["way"]`."""


AT_BEGIN = {
    "SET LOCAL": "SET LOCAL app.tenant = '{0}'",
    "set_config": "SELECT set_config('app.tenant', '{0}', true)",
    "a function": "SELECT become('{0}')",
    "SET LOCAL search_path": "SET LOCAL search_path = {0}",
}


@event.listens_for(TenantSession, "after_begin")
def _say_whose(session: Session, _transaction: Any, connection: Any) -> None:
    if "tenant" in session.info:
        connection.execute(text(AT_BEGIN[session.info["way"]].format(session.info["tenant"])))


Ask = Callable[[str], Awaitable[set[str]]]
Way = Callable[[Router, str], Any]


def listening(way: str) -> Way:
    """A session whose listener says whose each transaction is."""

    @asynccontextmanager
    async def opened(db: Router, tenant: str) -> AsyncIterator[Ask]:
        async with db.read(info={"tenant": tenant, "way": way}) as session:

            async def ask(sql: str) -> set[str]:
                return set((await session.scalars(text(sql))).all())

            yield ask

    return opened


def in_sessions(first: str, *, block: bool) -> Way:
    """A session that says so by itself, in a block of its own or not."""

    @asynccontextmanager
    async def opened(db: Router, tenant: str) -> AsyncIterator[Ask]:
        async with db.read() as session:

            async def ask(sql: str) -> set[str]:
                return set((await session.scalars(text(sql))).all())

            if block:
                async with session.begin():
                    await session.execute(text(first.format(tenant)))
                    yield ask
            else:
                await session.execute(text(first.format(tenant)))
                yield ask

    return opened


def in_core(first: str, *, block: bool) -> Way:
    """Likewise with a connection of Core's."""

    @asynccontextmanager
    async def opened(db: Router, tenant: str) -> AsyncIterator[Ask]:
        async with db.read.connect() as connection:

            async def ask(sql: str) -> set[str]:
                return set((await connection.scalars(text(sql))).all())

            if block:
                async with connection.begin():
                    await connection.execute(text(first.format(tenant)))
                    yield ask
            else:
                await connection.execute(text(first.format(tenant)))
                yield ask

    return opened


def in_asyncpg(first: str, *, block: bool) -> Way:
    """Likewise with the driver's own connection."""

    @asynccontextmanager
    async def opened(db: Router, tenant: str) -> AsyncIterator[Ask]:
        async with db.read.asyncpg() as driver:

            async def ask(sql: str) -> set[str]:
                return {row["tenant"] for row in await driver.fetch(sql)}

            if block:
                async with driver.transaction():
                    await driver.execute(first.format(tenant))
                    yield ask
            else:
                await driver.execute(first.format(tenant))
                yield ask

    return opened


def ways() -> dict[str, tuple[Way, str]]:
    """Every way, and what it asks once it is said whose the request is."""
    found: dict[str, tuple[Way, str]] = {}
    for how in AT_BEGIN:
        found[f"after_begin, {how}"] = listening(how), MINE if "search_path" in how else DOCS
    for kind, made in {"session": in_sessions, "Core": in_core, "asyncpg": in_asyncpg}.items():
        for how, sql in {**AT_BEGIN, "SET search_path": "SET search_path = {0}"}.items():
            for block in (True, False):
                name = f"{kind}, {how}, {'begin()' if block else 'no block'}"
                found[name] = made(sql, block=block), MINE if "search_path" in how else DOCS
    return found
