"""advanced-alchemy's read/write routing, in an environment of its own: it needs SQLAlchemy below 2.1.

It imports nothing from here, and speaks the line protocol of `benchmarks/peer.py`: the first line has the URLs,
each further one says what to run and how often, and is answered with the seconds of each session.
"""

import asyncio
import json
import sys
import time
from importlib.metadata import version
from typing import Any

from advanced_alchemy.config import (  # type: ignore[import-not-found]
    AsyncSessionConfig,
    EngineConfig,
    RoutingConfig,
    SQLAlchemyAsyncConfig,
)
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    pass


class Item(Base):
    __tablename__ = "item"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


class Sessions:
    """One session per call, as its documentation has it; nothing else is set than what all contestants share."""

    def __init__(self, primary: str, replica: str, **pool: int) -> None:
        self.config = SQLAlchemyAsyncConfig(
            routing_config=RoutingConfig(primary_connection_string=primary, read_replicas=[replica]),
            engine_config=EngineConfig(**pool),
            session_config=AsyncSessionConfig(expire_on_commit=False),
        )
        self.maker: Any = self.config.create_session_maker()

    async def read(self) -> None:
        session: AsyncSession
        async with self.maker() as session:
            await session.get(Item, 1)

    async def write(self) -> None:
        session: AsyncSession
        async with self.maker() as session:
            session.add(Item(name="written"))
            await session.commit()


async def main() -> None:
    sessions: Sessions | None = None
    while line := await asyncio.to_thread(sys.stdin.readline):
        request = json.loads(line)
        if sessions is None:
            sessions = Sessions(**request)
            found: dict[str, Any] = {name: version(name) for name in ("advanced-alchemy", "sqlalchemy", "asyncpg")}
        else:
            run = sessions.read if request["run"] == "read" else sessions.write
            seconds, cpu = [], time.process_time()
            for _ in range(request["count"]):
                start = time.perf_counter()
                await run()
                seconds.append(time.perf_counter() - start)
            found = {"seconds": seconds, "cpu": time.process_time() - cpu}
        sys.stdout.write(json.dumps(found) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main())
