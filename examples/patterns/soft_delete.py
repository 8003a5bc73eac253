"""Soft delete, timestamps that the server sets, and a partial functional index, through the models of models.py."""

from datetime import datetime
from uuid import UUID

from fastapi import FastAPI, HTTPException
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from examples.patterns.database import SECRET, db
from examples.patterns.models import LIVING, User
from lagwise.fastapi import CausalityMiddleware, ReadSession, WriteSession, lifespan

api = FastAPI(lifespan=lifespan(db))
app = CausalityMiddleware(api, secret=SECRET, route_header=True)


@api.put("/users/{email}")
async def create(email: str, session: WriteSession) -> datetime:
    session.add(user := User(email=email))
    try:
        await session.flush()
    except IntegrityError:  # the partial index: one living user for an address
        raise HTTPException(409, "this address is taken") from None
    return user.created_at  # set by the server, and brought by RETURNING


@api.patch("/users/{email}")
async def rename(email: str, name: str, session: WriteSession) -> bool:
    user = (await session.scalars(select(User).where(User.email == email, LIVING))).one()
    user.name = name
    await session.flush()
    await session.refresh(user, ["updated_at"])
    return user.updated_at > user.created_at


@api.delete("/users/{email}")
async def remove(email: str, session: WriteSession) -> None:
    (await session.scalars(select(User).where(User.email == email, LIVING))).one().soft_delete()


@api.get("/users/{email}")
async def show(email: str, session: ReadSession) -> list[UUID]:
    return list(await session.scalars(select(User.id).where(User.email == email, LIVING)))
