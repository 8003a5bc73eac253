"""sqladmin has one session maker for everything: this one reads from replicas where the request only reads."""

import os
from contextvars import ContextVar
from typing import Any

from fastapi import FastAPI
from sqladmin import Admin, ModelView
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

from lagwise import Router
from lagwise.fastapi import CausalityMiddleware, lifespan

db = Router.from_env()
writes: ContextVar[bool] = ContextVar("writes", default=True)


class ByMethod:
    """ASGI middleware: a GET only reads."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        writes.set(scope.get("method") not in {"GET", "HEAD"})
        await self.app(scope, receive, send)


class Sessions(async_sessionmaker[AsyncSession]):
    """A maker of sqladmin's own, because sqladmin configures it: `db.write` would lose its autoflush everywhere."""

    def __call__(self, **options: Any) -> AsyncSession:
        return (db.write if writes.get() else db.read)(autoflush=False, **options)


class Base(DeclarativeBase):
    pass


class Item(Base):
    __tablename__ = "item"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


class Items(ModelView, model=Item):
    column_list = (Item.id, Item.name)
    column_searchable_list = (Item.name,)


api = FastAPI(lifespan=lifespan(db))
Admin(api, session_maker=Sessions(), middlewares=[Middleware(ByMethod)]).add_view(Items)
app = CausalityMiddleware(api, secret=os.environ["LAGWISE_SECRET"], route_header=True)
