"""What every contestant reads and writes: one table, and the servers it is on."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass

from sqlalchemy import make_url, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from lagwise.testing import Cluster

POOL = {"pool_size": 20, "max_overflow": 0}  # of every contestant, unless a row says otherwise


class Base(DeclarativeBase):
    pass


class Item(Base):
    __tablename__ = "item"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


@dataclass(frozen=True, slots=True)
class Servers:
    """The SQLAlchemy URLs of one way to the servers: directly, or through the proxies."""

    primary: str
    replica: str

    def as_json(self) -> dict[str, str]:
        return asdict(self)


@asynccontextmanager
async def prepared() -> AsyncIterator[tuple[Cluster, Servers]]:
    """A primary and a replica with one row to read; the servers are addressed directly."""
    # Every HTTP contestant has a pool of its own, and all of them are up at once.
    async with Cluster(replicas=1, settings={"max_connections": 400}) as cluster:
        engine = create_async_engine(cluster.primary.direct_url)
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
            await connection.execute(text("INSERT INTO item (name) VALUES ('read me')"))
        await engine.dispose()
        await cluster.caught_up()
        yield cluster, Servers(cluster.primary.direct_url, cluster.replicas[0].direct_url)


def address(url: str) -> tuple[str, int]:
    """Host and port of a URL."""
    parsed = make_url(url)
    assert parsed.host is not None
    assert parsed.port is not None
    return parsed.host, parsed.port


def at(url: str, port: int) -> str:
    """The URL with another port."""
    return make_url(url).set(port=port).render_as_string(hide_password=False)


def dsn(url: str) -> str:
    """The URL as asyncpg itself takes it."""
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
