"""Sessions outside of requests, for a command line: `python -m examples.patterns.script ann@example.org`."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from examples.patterns.database import db
from examples.patterns.models import LIVING, User
from lagwise import Causality


@asynccontextmanager
async def get_session() -> AsyncIterator[AsyncSession]:
    async with db.write.begin() as session:  # commits on success, rolls back on an error
        yield session


async def add(emails: list[str]) -> int:
    async with get_session() as session:
        session.add_all([User(email=email) for email in emails])
    async with db.read() as session:
        return await session.scalar(select(func.count()).where(LIVING, User.email.in_(emails))) or 0


async def main(emails: list[str]) -> None:
    async with db:
        with Causality():  # what is written in here is read in here; without it, reads are at most max_lag behind
            print(f"{await add(emails)} users added")  # noqa: T201


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
