"""The application the demo serves: the same endpoints over a naive read/write split and over lagwise."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from itertools import cycle
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Response, params
from fastapi.responses import FileResponse
from pydantic import BaseModel
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from lagwise import Router
from lagwise.fastapi import CausalityMiddleware, health_router, lifespan, reads, writes

NAIVE, LAGWISE = "/naive/items", "/items"
SERVED_BY = "Demo-Served-By"
_PAGE = Path(__file__).with_name("page.html")
_NODE = "demo.node"


class Base(DeclarativeBase):
    """The demo's tables."""


class Item(Base):
    """Something to do."""

    __tablename__ = "items"

    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]


class ItemIn(BaseModel):
    """An item as a client sends it."""

    text: str


class ItemOut(ItemIn):
    """An item as a client gets it."""

    id: int


class NaiveSplit:
    """The usual recipe: two kinds of engine with pre-ping, and whichever replica is next."""

    def __init__(self, primary: str, replicas: Mapping[str, str]) -> None:
        self._engines: list[AsyncEngine] = []
        self._write = self._sessions("primary", primary)
        self._read = cycle([self._sessions(name, url) for name, url in replicas.items()])

    async def write(self) -> AsyncIterator[AsyncSession]:
        """A session on the primary, committed at the end."""
        async with self._write() as session:
            yield session
            await session.commit()

    async def read(self) -> AsyncIterator[AsyncSession]:
        """A session on the next replica."""
        async with next(self._read)() as session:
            yield session

    async def close(self) -> None:
        """Close the connections."""
        for engine in self._engines:
            await engine.dispose()

    def _sessions(self, name: str, url: str) -> async_sessionmaker[AsyncSession]:
        engine = create_async_engine(url, pool_pre_ping=True)
        self._engines.append(engine)
        return async_sessionmaker(engine, expire_on_commit=False, info={_NODE: name})


def application(db: Router, split: NaiveSplit, *, secret: str) -> FastAPI:
    """`/items` through lagwise, `/naive/items` through the split; opens `db`, makes the tables."""

    @asynccontextmanager
    async def inner(_: FastAPI) -> AsyncIterator[None]:
        async with db.write.begin() as session:
            await (await session.connection()).run_sync(Base.metadata.create_all)
        try:
            yield
        finally:
            await split.close()

    app = FastAPI(title="lagwise demo", lifespan=lifespan(db, inner=inner))
    app.add_middleware(CausalityMiddleware, secret=secret, route_header=True)
    app.include_router(health_router(db), prefix="/health")
    # "function": the naive split, too, commits before it answers. What it then misses is the lag alone.
    naive = Depends(split.read, scope="function"), Depends(split.write, scope="function")
    app.include_router(_items(*naive), prefix=NAIVE, tags=["through a naive split"])
    app.include_router(_items(reads(db), writes(db)), prefix=LAGWISE, tags=["through lagwise"])

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(_PAGE)

    return app


def _items(read: params.Depends, write: params.Depends) -> APIRouter:
    router = APIRouter()

    @router.post("", status_code=201)
    async def create(item: ItemIn, session: Annotated[AsyncSession, write]) -> ItemOut:
        new = Item(text=item.text)
        session.add(new)
        await session.flush()
        return ItemOut(id=new.id, text=new.text)

    @router.get("/{item_id}")
    async def show(item_id: int, response: Response, session: Annotated[AsyncSession, read]) -> ItemOut:
        # One statement reads the item and the role that the server reports. A miss names its server, too.
        text = select(Item.text).where(Item.id == item_id).scalar_subquery()
        found = (await session.execute(select(func.pg_is_in_recovery(), text))).one()
        name = session.info.get(_NODE) or session.info["lagwise.route"].node
        served_by = {SERVED_BY: f"{name}; {'replica' if found[0] else 'primary'}"}
        if found[1] is None:
            raise HTTPException(404, "no such item", headers=served_by)
        response.headers.update(served_by)
        return ItemOut(id=item_id, text=found[1])

    return router
