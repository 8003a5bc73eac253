"""Bookkeeping: a stamp that each request writes must not send its visitor's reads to the primary."""

from typing import Annotated
from uuid import UUID

from fastapi import Depends, FastAPI, HTTPException
from sqlalchemy import func, update
from sqlalchemy.ext.asyncio import AsyncSession

from examples.patterns.database import SECRET, db
from examples.patterns.models import User
from lagwise.fastapi import CausalityMiddleware, ReadSession, WriteSession, lifespan, writes

api = FastAPI(lifespan=lifespan(db))
app = CausalityMiddleware(api, secret=SECRET, route_header=True)


async def seen(user_id: UUID, session: Annotated[AsyncSession, writes(sticky=False)]) -> None:
    await session.execute(update(User).where(User.id == user_id).values(updated_at=func.clock_timestamp()))


@api.post("/users", status_code=201)
async def register(email: str, session: WriteSession) -> UUID:
    session.add(user := User(email=email))
    await session.flush()
    return user.id


@api.get("/users/{user_id}", dependencies=[Depends(seen)])
async def show(user_id: UUID, session: ReadSession) -> str:
    user = await session.get(User, user_id)
    if user is None:
        raise HTTPException(404)
    return user.email
