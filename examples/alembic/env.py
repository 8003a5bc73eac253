"""Alembic's async template, but for the engine: a Router says which node is the primary now, also after a failover.

`alembic -c examples/alembic/alembic.ini upgrade head`
"""

import asyncio
import os

from alembic import context
from sqlalchemy import MetaData
from sqlalchemy.engine import Connection
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from lagwise import Router

target_metadata = MetaData()  # of your models
primary, replicas = os.environ["LAGWISE_PRIMARY"], os.environ["LAGWISE_REPLICAS"].split(",")
urls = {"primary": primary, **{f"replica-{number}": url for number, url in enumerate(replicas, 1)}}


def migrate(connection: Connection) -> None:
    context.configure(connection=connection, target_metadata=target_metadata, transaction_per_migration=True)
    with context.begin_transaction():
        context.run_migrations()


async def run() -> None:
    async with Router(primary, replicas) as db:
        async with db.write() as session:
            await session.connection()  # raises NoPrimary if there is none
            node = session.info["lagwise.route"].node
        engine = create_async_engine(urls[node], poolclass=NullPool)  # of its own, for autocommit_block()
        async with engine.connect() as connection:
            await connection.run_sync(migrate)
        await engine.dispose()
        await db.caught_up(timeout=30)  # what is started next finds the new schema on every replica


if context.is_offline_mode():
    raise SystemExit("offline mode has no server to ask: use the run_migrations_offline() of Alembic's template")
asyncio.run(run())
