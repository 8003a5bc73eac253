"""`get_read_db` and `get_write_db` over two engines."""

import os
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

primary_engine = create_async_engine(os.environ["DATABASE_URL"])
replica_engine = create_async_engine(os.environ["READ_REPLICA_URL"])
write_sessions = async_sessionmaker(primary_engine, expire_on_commit=False)
read_sessions = async_sessionmaker(replica_engine, expire_on_commit=False)


async def get_write_db() -> AsyncIterator[AsyncSession]:
    async with write_sessions() as session:
        yield session
        await session.commit()


async def get_read_db() -> AsyncIterator[AsyncSession]:
    async with read_sessions() as session:
        yield session


router = APIRouter()


@router.post("/items/{name}")
async def create(name: str, session: Annotated[AsyncSession, Depends(get_write_db)]) -> None:
    await session.execute(text("INSERT INTO item (name) VALUES (:name)"), {"name": name})


@router.get("/items/{name}")
async def count(name: str, session: Annotated[AsyncSession, Depends(get_read_db)]) -> dict[str, Any]:
    query = text("SELECT count(*) AS items, pg_is_in_recovery() AS replica FROM item WHERE name = :name")
    return dict((await session.execute(query, {"name": name})).mappings().one())


app = FastAPI()
app.include_router(router)
