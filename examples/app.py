"""A to-do list that reads from replicas and never misses its own writes: `uvicorn examples.app:app`."""

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from fastapi import FastAPI, HTTPException, Request
from pydantic import BaseModel, ConfigDict
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from lagwise import Router
from lagwise.fastapi import CausalityMiddleware, ReadSession, RoutedSession, WriteSession, health_router, lifespan
from lagwise.health import ProcessDrain
from lagwise.settings import Settings

db = Router.from_env()  # LAGWISE_PRIMARY, LAGWISE_REPLICAS, and any setting besides: LAGWISE_MAX_LAG, ...


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
async def tables(_: FastAPI) -> AsyncIterator[None]:
    # Your migrations do this, before the application starts.
    async with db.write.begin() as session:
        await (await session.connection()).run_sync(Base.metadata.create_all)
    yield


# How long load balancers have to notice that this process ends, seconds: examples/haproxy, nginx and kubernetes say it.
drain = ProcessDrain(grace=float(os.environ.get("DRAIN_GRACE", "0")))

api = FastAPI(lifespan=lifespan(db, inner=tables, drain=drain))
api.include_router(health_router(db, drain=drain), prefix="/health")
api.add_middleware(drain.closing)
# Outermost, so that no response passes without the token: this is what a server serves.
app = CausalityMiddleware(api, secret=Settings().secrets, route_header=True)


@api.post("/items", status_code=201, response_model=ItemOut)
async def create(item: ItemIn, session: WriteSession) -> Item:
    new = Item(**item.model_dump())
    session.add(new)
    await session.flush()  # gives it its id; COMMIT comes by itself, before the response
    return new


@api.get("/items", response_model=list[ItemOut])
async def newest(session: ReadSession) -> Sequence[Item]:
    return (await session.scalars(select(Item).order_by(Item.id.desc()).limit(100))).all()


@api.get("/items/{item_id}", response_model=ItemOut)
async def show(item_id: int, session: ReadSession) -> Item:
    return await found(session, item_id)


@api.get("/items/{item_id}/done")
@api.put("/items/{item_id}/done")
async def done(item_id: int, request: Request, session: RoutedSession) -> bool:
    item = await found(session, item_id)  # GET: on a replica; PUT: on the primary
    if request.method == "PUT":
        item.done = True
    return item.done


async def found(session: AsyncSession, item_id: int) -> Item:
    item = await session.get(Item, item_id)
    if item is None:
        raise HTTPException(404, "no such item")
    return item
