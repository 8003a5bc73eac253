"""Clients without cookies: what one client of an API key wrote, the key's other clients read."""

from typing import Any
from uuid import UUID

from fastapi import FastAPI, HTTPException

from examples.patterns.database import SECRET, db
from examples.patterns.models import User
from lagwise.fastapi import CausalityMiddleware, ReadSession, WriteSession, lifespan
from lagwise.store import MemoryStore

api = FastAPI(lifespan=lifespan(db))


def principal(scope: Any) -> str | None:
    return next((value.decode("latin-1") for name, value in scope["headers"] if name == b"x-api-key"), None)


# One process; several share a RedisStore.
app = CausalityMiddleware(api, secret=SECRET, store=MemoryStore(), key=principal, route_header=True)


@api.post("/users", status_code=201)
async def register(email: str, session: WriteSession) -> UUID:
    session.add(user := User(email=email))
    await session.flush()
    return user.id


@api.get("/users/{user_id}")
async def show(user_id: UUID, session: ReadSession) -> str:
    user = await session.get(User, user_id)
    if user is None:
        raise HTTPException(404)
    return user.email
