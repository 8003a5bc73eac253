"""Litestar: the same middleware; its dependencies commit before the response, and roll back on an error."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from litestar import Litestar, get, post
from litestar.di import NamedDependency, Provide
from litestar.params import FromPath
from sqlalchemy import Column, Integer, MetaData, String, Table, func, insert, select
from sqlalchemy.ext.asyncio import AsyncSession

from lagwise import Router
from lagwise.asgi import CausalityMiddleware

db = Router.from_env()


item = Table("item", MetaData(), Column("id", Integer, primary_key=True), Column("name", String))


async def reading() -> AsyncIterator[AsyncSession]:
    async with db.read() as session:
        yield session


async def writing() -> AsyncIterator[AsyncSession]:
    async with db.write.begin() as session:
        yield session


@post("/items/{name:str}")
async def create(name: FromPath[str], writes: NamedDependency[AsyncSession]) -> int:
    return await writes.scalar(insert(item).values(name=name).returning(item.c.id)) or 0


@get("/items/{name:str}")
async def count(name: FromPath[str], reads: NamedDependency[AsyncSession]) -> int:
    return await reads.scalar(select(func.count()).select_from(item).where(item.c.name == name)) or 0


@asynccontextmanager
async def lifespan(_: Litestar) -> AsyncIterator[None]:
    async with db:
        yield


sessions = {"reads": Provide(reading), "writes": Provide(writing)}
site = Litestar([create, count], dependencies=sessions, lifespan=[lifespan])
app = CausalityMiddleware(site, secret=os.environ["LAGWISE_SECRET"], route_header=True)
