"""The usual recipe, to compare with `app.py`: two engines, and reads that miss the client's own writes."""

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import cycle
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException
from pydantic import BaseModel, ConfigDict
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

replicas = [url.strip() for url in os.environ.get("LAGWISE_REPLICAS", "").split(",") if url.strip()]
primary = create_async_engine(os.environ["LAGWISE_PRIMARY"], pool_pre_ping=True)
replica_engines = [create_async_engine(url, pool_pre_ping=True) for url in replicas] or [primary]
write_maker = async_sessionmaker(primary, expire_on_commit=False)
read_makers = cycle([async_sessionmaker(engine, expire_on_commit=False) for engine in replica_engines])


async def get_write_db() -> AsyncIterator[AsyncSession]:
    async with write_maker() as session:
        yield session


async def get_read_db() -> AsyncIterator[AsyncSession]:
    async with next(read_makers)() as session:
        yield session


WriteDb = Annotated[AsyncSession, Depends(get_write_db)]
ReadDb = Annotated[AsyncSession, Depends(get_read_db)]


class Base(DeclarativeBase):
    pass


class Item(Base):
    __tablename__ = "items"

    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]
    done: Mapped[bool] = mapped_column(default=False)


class ItemIn(BaseModel):
    text: str


class ItemOut(ItemIn):
    model_config = ConfigDict(from_attributes=True)

    id: int
    done: bool


@asynccontextmanager
async def run(_: FastAPI) -> AsyncIterator[None]:
    async with primary.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    yield
    for engine in {primary, *replica_engines}:
        await engine.dispose()


app = FastAPI(lifespan=run)


@app.post("/items", status_code=201, response_model=ItemOut)
async def create(item: ItemIn, session: WriteDb) -> Item:
    new = Item(**item.model_dump())
    session.add(new)
    await session.commit()  # here: what follows the yield of a dependency runs after the response
    return new


@app.get("/items", response_model=list[ItemOut])
async def newest(session: ReadDb) -> Sequence[Item]:
    return (await session.scalars(select(Item).order_by(Item.id.desc()).limit(100))).all()


@app.get("/items/{item_id}", response_model=ItemOut)
async def show(item_id: int, session: ReadDb) -> Item:
    return await found(session, item_id)  # 404 for the client that has just created it, on a lagging replica


@app.get("/items/{item_id}/done")
async def is_done(item_id: int, session: ReadDb) -> bool:
    return (await found(session, item_id)).done


@app.put("/items/{item_id}/done")
async def make_done(item_id: int, session: WriteDb) -> bool:
    item = await found(session, item_id)
    item.done = True
    await session.commit()
    return item.done


async def found(session: AsyncSession, item_id: int) -> Item:
    item = await session.get(Item, item_id)
    if item is None:
        raise HTTPException(404, "no such item")
    return item
