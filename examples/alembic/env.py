"""Alembic's async template, but for the engine: a Router says which node is the primary now, also after a failover.

Yours: `alembic init -t async migrations`, then this file in place of `migrations/env.py`, with your models' metadata.
The environment says the nodes, as for `Router.from_env()`: their own URLs, and not those of a PgBouncer.
"""

import asyncio

from alembic import context
from sqlalchemy import MetaData
from sqlalchemy.engine import Connection
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from lagwise import Router
from lagwise.settings import Settings

target_metadata = MetaData()  # of your models
settings = Settings()


def migrate(connection: Connection) -> None:
    context.configure(connection=connection, target_metadata=target_metadata, transaction_per_migration=True)
    with context.begin_transaction():
        context.run_migrations()


async def run() -> None:
    async with Router.from_env() as db:
        async with db.write() as session:
            await session.connection()  # raises NoPrimary if there is none
            node = session.info["lagwise.route"].node
        nodes = settings.arguments()
        url = {"primary": nodes["primary"], **nodes["replicas"]}[node]
        engine = create_async_engine(url, poolclass=NullPool)  # of its own, for autocommit_block()
        async with engine.connect() as connection:
            await connection.run_sync(migrate)
        await engine.dispose()
        await db.caught_up(timeout=30)  # what is started next finds the new schema on every replica


if context.is_offline_mode():
    raise SystemExit("offline mode has no server to ask: use the run_migrations_offline() of Alembic's template")
if settings.pooling == "transaction":  # a prepared statement would stay in the pooler's server, for the next command
    raise SystemExit("migrations go past the pooler: give them the servers' own URLs, and LAGWISE_POOLING=session")
asyncio.run(run())
