"""Starlette alone: the same middleware, and sessions that endpoints open themselves."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy import func, select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from lagwise import Router
from lagwise.asgi import CausalityMiddleware

db = Router.from_env()


class Base(DeclarativeBase):
    pass


class Item(Base):
    __tablename__ = "item"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


async def create(request: Request) -> JSONResponse:
    async with db.write.begin() as session:  # COMMIT at the end of the block, before the response
        session.add(item := Item(name=request.path_params["name"]))
    return JSONResponse(item.id, 201)


async def count(request: Request) -> JSONResponse:
    async with db.read() as session:
        found = select(func.count()).select_from(Item).where(Item.name == request.path_params["name"])
        return JSONResponse(await session.scalar(found))


@asynccontextmanager
async def lifespan(_: Starlette) -> AsyncIterator[None]:
    async with db:
        yield


routes = [Route("/items/{name}", create, methods=["POST"]), Route("/items/{name}", count)]
app = CausalityMiddleware(
    Starlette(routes=routes, lifespan=lifespan), secret=os.environ["LAGWISE_SECRET"], route_header=True
)
