"""A session class whose `get_bind` chooses an engine for each statement, as SQLAlchemy's documentation shows."""

import os
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI
from sqlalchemy import Delete, Insert, Update, select, text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column


class RoutingSession(Session):
    def get_bind(self, mapper: Any = None, *, clause: Any = None, **_: Any) -> Any:
        if self._flushing or isinstance(clause, Insert | Update | Delete):
            return primary_engine.sync_engine
        return replica_engine.sync_engine


primary_engine = create_async_engine(os.environ["DATABASE_URL"])
replica_engine = create_async_engine(os.environ["READ_REPLICA_URL"])
sessions = async_sessionmaker(sync_session_class=RoutingSession, expire_on_commit=False)


async def get_db() -> AsyncIterator[AsyncSession]:
    async with sessions() as session:
        yield session
        await session.commit()


Db = Annotated[AsyncSession, Depends(get_db)]
router = APIRouter()


class Base(DeclarativeBase):
    pass


class Item(Base):
    __tablename__ = "item"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


@router.post("/items/{name}")
async def create(name: str, session: Db) -> None:
    session.add(Item(name=name))


@router.get("/items/{name}")
async def count(name: str, session: Db) -> dict[str, Any]:
    items = len((await session.scalars(select(Item).where(Item.name == name))).all())
    return {"items": items, "replica": await session.scalar(text("SELECT pg_is_in_recovery()"))}


app = FastAPI()
app.include_router(router)
