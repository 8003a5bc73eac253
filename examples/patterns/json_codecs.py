"""The pool's `init=`: a codec that gives json columns as Python values, to asyncpg and to the ORM."""

import json
from typing import Any

from fastapi import FastAPI
from sqlalchemy import event
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.orm import Mapped, mapped_column

from examples.patterns.database import PRIMARY, REPLICAS, SECRET
from examples.patterns.models import Base
from lagwise import Router
from lagwise.fastapi import CausalityMiddleware, ReadAsyncpg, ReadSession, WriteAsyncpg, lifespan


async def init(connection: Any) -> None:
    for name in ("json", "jsonb"):
        await connection.set_type_codec(name, encoder=json.dumps, decoder=json.loads, schema="pg_catalog")


def with_codecs(url: str) -> AsyncEngine:
    # The ORM's JSON types leave values as they are: the codec has done the work.
    engine = create_async_engine(url, json_serializer=lambda value: value, json_deserializer=lambda value: value)
    event.listen(engine.sync_engine, "connect", lambda adapter, _record: adapter.run_async(init))
    return engine


class Document(Base):
    __tablename__ = "documents"

    name: Mapped[str] = mapped_column(primary_key=True)
    body: Mapped[Any] = mapped_column(JSONB)


db = Router(with_codecs(PRIMARY), [with_codecs(url) for url in REPLICAS])
api = FastAPI(lifespan=lifespan(db))
app = CausalityMiddleware(api, secret=SECRET, route_header=True)


@api.put("/documents/{name}")
async def put(name: str, body: dict[str, Any], conn: WriteAsyncpg) -> None:
    await conn.execute("INSERT INTO documents VALUES ($1, $2)", name, body)


@api.get("/documents/{name}")
async def get(name: str, conn: ReadAsyncpg, session: ReadSession) -> list[Any]:
    by_the_driver = await conn.fetchval("SELECT body FROM documents WHERE name = $1", name)
    by_the_orm = await session.get_one(Document, name)
    return [by_the_driver, by_the_orm.body]
