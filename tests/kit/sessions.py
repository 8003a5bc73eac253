"""What tests ask of a session, and a write through one."""

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from lagwise import Router
from tests.kit.application import Item


async def count(session: AsyncSession, name: str) -> int:
    """How many items of this name the session sees."""
    return await session.scalar(text("SELECT count(*) FROM item WHERE name = :name"), {"name": name}) or 0


async def on_replica(session: AsyncSession) -> bool:
    """Who answers, asked of the server."""
    return bool(await session.scalar(text("SELECT pg_is_in_recovery()")))


async def write(db: Router, name: str) -> str:
    """Write an item; the node that took it."""
    async with db.write.begin() as session:
        session.add(Item(name=name))
    return str(session.info["lagwise.route"].node)
