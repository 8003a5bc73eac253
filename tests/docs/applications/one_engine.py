"""One engine, one `get_db`, no replica."""

import os
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

engine = create_async_engine(os.environ["DATABASE_URL"], pool_pre_ping=True)
new_session = async_sessionmaker(engine, expire_on_commit=False)


async def get_db() -> AsyncIterator[AsyncSession]:
    async with new_session() as session:
        yield session
        await session.commit()


router = APIRouter()


@router.post("/items/{name}")
async def create(name: str, session: Annotated[AsyncSession, Depends(get_db)]) -> None:
    await session.execute(text("INSERT INTO item (name) VALUES (:name)"), {"name": name})


@router.get("/items/{name}")
async def count(name: str, session: Annotated[AsyncSession, Depends(get_db)]) -> dict[str, Any]:
    query = text("SELECT count(*) AS items, pg_is_in_recovery() AS replica FROM item WHERE name = :name")
    return dict((await session.execute(query, {"name": name})).mappings().one())


app = FastAPI()
app.include_router(router)
