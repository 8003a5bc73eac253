"""PgBouncer in transaction mode between the application and its nodes: one word more."""

from uuid import UUID

from sqlalchemy import select

from examples.patterns.models import User
from lagwise import Causality, Router


def router(primary: str, replicas: list[str]) -> Router:
    return Router(primary, replicas, pooling="transaction")


async def register(db: Router, email: str) -> tuple[UUID, bool]:
    """Adds a user, and looks for it."""
    with Causality():
        async with db.write.begin() as session:
            session.add(user := User(email=email))
        async with db.read() as session:
            return user.id, await session.scalar(select(User.email).where(User.id == user.id)) == email
