"""What the offload scenario reads and writes, and the usual recipe: engines of one's own, and no check at all."""

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from lagwise.testing.cluster import Cluster


class Base(DeclarativeBase):
    """The tables of the scenario."""


class Note(Base):
    """A row that one client writes."""

    __tablename__ = "note"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    value: Mapped[int]


@dataclass(frozen=True, slots=True)
class Windows:
    """The usual recipe: for some seconds after its own write a client reads from the primary, then from anywhere."""

    primary: async_sessionmaker[AsyncSession]
    replicas: tuple[async_sessionmaker[AsyncSession], ...]

    def session(self, on_replica: bool) -> AsyncSession:
        """A session on the primary, or on a replica drawn blindly."""
        return random.choice(self.replicas)() if on_replica else self.primary()


@asynccontextmanager
async def windows(cluster: Cluster) -> AsyncIterator[Windows]:
    """The recipe over this cluster, with engines that cost it no more round trips than lagwise's."""
    engines = [
        create_async_engine(node.direct_url, pool_size=20, max_overflow=0, isolation_level="AUTOCOMMIT")
        for node in (cluster.primary, *cluster.replicas)
    ]
    try:
        first, *rest = (async_sessionmaker(engine, expire_on_commit=False) for engine in engines)
        yield Windows(first, tuple(rest))
    finally:
        for engine in engines:
            await engine.dispose()


async def created(cluster: Cluster) -> None:
    """The tables, on every node."""
    engine = create_async_engine(cluster.primary.direct_url)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    await engine.dispose()
    await cluster.caught_up()
