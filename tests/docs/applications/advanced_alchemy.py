"""advanced-alchemy with its own routing, and its autocommit."""

import os
from typing import Annotated, Any

from advanced_alchemy.config.routing import RoutingConfig
from advanced_alchemy.extensions.fastapi import AdvancedAlchemy, SQLAlchemyAsyncConfig
from fastapi import APIRouter, Depends, FastAPI
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

routing = RoutingConfig(os.environ["DATABASE_URL"], [os.environ["READ_REPLICA_URL"]])
config = SQLAlchemyAsyncConfig(routing_config=routing, commit_mode="autocommit")
app = FastAPI()
alchemy = AdvancedAlchemy(config=config, app=app)
Db = Annotated[AsyncSession, Depends(alchemy.provide_session())]

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


app.include_router(router)
