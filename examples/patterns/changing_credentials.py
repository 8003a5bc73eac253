"""Passwords that change while the application runs (IAM tokens): by the `do_connect` event, or by `async_creator`."""

import os
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg  # type: ignore[import-untyped]
from fastapi import FastAPI, HTTPException
from sqlalchemy import event, make_url
from sqlalchemy.ext.asyncio import create_async_engine

from examples.patterns.database import PRIMARY, REPLICAS, SECRET
from examples.patterns.models import User
from lagwise import Router
from lagwise.fastapi import CausalityMiddleware, ReadSession, WriteSession, lifespan


def current_token() -> str:
    return Path(os.environ["TOKEN_FILE"]).read_text()  # boto3's generate_db_auth_token(), say


primary = create_async_engine(make_url(PRIMARY).set(username="rotating", password=None))


@event.listens_for(primary.sync_engine, "do_connect")
def provide_token(_dialect: Any, _record: Any, _args: Any, kwargs: dict[str, Any]) -> None:
    kwargs["password"] = current_token()  # for every connection: sessions' of both kinds, and the monitor's


async def connect_to_replica(**kwargs: Any) -> asyncpg.Connection:
    url = make_url(REPLICAS[0])
    return await asyncpg.connect(
        host=url.host, port=url.port, database=url.database, user="rotating", password=current_token(), **kwargs
    )


replica = create_async_engine("postgresql+asyncpg://", async_creator=connect_to_replica)
db = Router(primary, [replica])
api = FastAPI(lifespan=lifespan(db))
app = CausalityMiddleware(api, secret=SECRET, route_header=True)


@api.post("/users", status_code=201)
async def register(email: str, session: WriteSession) -> UUID:
    session.add(user := User(email=email))
    await session.flush()
    return user.id


@api.get("/users/{user_id}")
async def show(user_id: UUID, session: ReadSession) -> str:
    if user := await session.get(User, user_id):
        return user.email
    raise HTTPException(404)
