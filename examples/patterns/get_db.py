"""The `get_db` of every guide: commits on success, rolls back on an error, raises again. One line of it changes."""

from collections.abc import AsyncIterator
from typing import Annotated
from uuid import UUID

from fastapi import Depends, FastAPI, HTTPException
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from examples.patterns.database import SECRET, db
from examples.patterns.models import User
from lagwise.fastapi import CausalityMiddleware, ReadSession, lifespan

api = FastAPI(lifespan=lifespan(db))
app = CausalityMiddleware(api, secret=SECRET, route_header=True)


async def get_db() -> AsyncIterator[AsyncSession]:
    async with db.write() as session:  # was: async with async_session_maker() as session:
        try:
            yield session
            await session.commit()  # before the response, on FastAPI's default scope as well
        except Exception:
            await session.rollback()
            raise


DbSession = Annotated[AsyncSession, Depends(get_db)]


@api.post("/users", status_code=201)
async def register(email: str, session: DbSession) -> UUID:
    session.add(user := User(email=email))
    try:
        await session.flush()
    except IntegrityError:
        raise HTTPException(409, "this address is taken") from None
    return user.id


@api.delete("/users/{user_id}", status_code=204)
async def remove(user_id: UUID, session: DbSession) -> None:
    user = await session.get(User, user_id)
    if user is None:
        raise HTTPException(404)
    user.soft_delete()
    if user.balance:
        raise HTTPException(409, "the account is not empty")  # and nothing is committed


@api.get("/users/{user_id}")
async def show(user_id: UUID, session: ReadSession) -> str:
    user = await session.get(User, user_id)
    if user is None or user.deleted_at is not None:
        raise HTTPException(404)
    return user.email
