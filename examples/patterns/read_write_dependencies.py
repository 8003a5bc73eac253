"""`get_read_db` and `get_write_db`, without two engines and without the stale reads between them."""

from collections.abc import AsyncIterator
from typing import Annotated
from uuid import UUID

from fastapi import Depends, FastAPI, HTTPException
from sqlalchemy.ext.asyncio import AsyncSession

from examples.patterns.database import SECRET, db
from examples.patterns.models import User
from lagwise.fastapi import CausalityMiddleware, lifespan, reads

api = FastAPI(lifespan=lifespan(db))
app = CausalityMiddleware(api, secret=SECRET, route_header=True)


async def get_write_db() -> AsyncIterator[AsyncSession]:
    async with db.write.begin() as session:
        yield session


async def get_read_db() -> AsyncIterator[AsyncSession]:
    async with db.read() as session:
        yield session


WriteDb = Annotated[AsyncSession, Depends(get_write_db, scope="function")]
ReadDb = Annotated[AsyncSession, Depends(get_read_db)]
StrongDb = Annotated[AsyncSession, reads(primary=True)]  # every client's latest, still read-only


@api.post("/users", status_code=201)
async def register(email: str, session: WriteDb) -> UUID:
    session.add(user := User(email=email))
    await session.flush()
    return user.id


@api.get("/users/{user_id}")
async def show(user_id: UUID, session: ReadDb) -> str:
    if user := await session.get(User, user_id):
        return user.email
    raise HTTPException(404)


@api.get("/users/{user_id}/may-log-in")
async def may_log_in(user_id: UUID, session: StrongDb) -> bool:
    user = await session.get(User, user_id)
    return user is not None and user.deleted_at is None


@api.get("/mistake")
async def mistake(session: ReadDb) -> None:
    session.add(User(email="never"))
    await session.flush()  # ReadOnly, on the primary as on a replica
