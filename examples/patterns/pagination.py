"""Pages by offset and by keyset; a client that pages never sees the list go backwards."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import FastAPI, Query
from pydantic import BaseModel, ConfigDict
from sqlalchemy import select, tuple_

from examples.patterns.database import PRIMARY, REPLICAS, SECRET
from examples.patterns.models import User
from lagwise import Policy, Router
from lagwise.fastapi import CausalityMiddleware, ReadSession, lifespan

# "session": a read is never older than an earlier one of its client, on whichever replica that was.
db = Router(PRIMARY, REPLICAS, policy=Policy(guarantee="session"))
api = FastAPI(lifespan=lifespan(db))
app = CausalityMiddleware(api, secret=SECRET, route_header=True)

Size = Annotated[int, Query(ge=1, le=100)]


class UserOut(BaseModel):
    model_config = ConfigDict(from_attributes=True)
    id: UUID
    email: str
    created_at: datetime


def newest(name: str, size: int) -> Any:
    return select(User).where(User.name == name).order_by(User.created_at.desc(), User.id.desc()).limit(size)


@api.get("/by-offset")
async def by_offset(session: ReadSession, name: str, page: int = 0, size: Size = 20) -> list[UserOut]:
    found = await session.scalars(newest(name, size).offset(page * size))
    return [UserOut.model_validate(user) for user in found]


@api.get("/by-keyset")
async def by_keyset(
    session: ReadSession, name: str, before: datetime | None = None, before_id: UUID | None = None, size: Size = 20
) -> list[UserOut]:
    query = newest(name, size)
    if before is not None:
        query = query.where(tuple_(User.created_at, User.id) < tuple_(before, before_id))
    return [UserOut.model_validate(user) for user in await session.scalars(query)]
