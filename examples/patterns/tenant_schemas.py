"""A schema for each tenant: `SET search_path` in a dependency, as every guide has it."""

import re
from typing import Annotated

from fastapi import Depends, FastAPI, Header, HTTPException
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from examples.patterns.database import SECRET, db
from lagwise.fastapi import CausalityMiddleware, ReadSession, WriteSession, lifespan


def tenant_schema(x_tenant: Annotated[str, Header()]) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,30}", x_tenant):  # it becomes a name in SQL
        raise HTTPException(400, "no such tenant")
    return x_tenant


Schema = Annotated[str, Depends(tenant_schema)]


async def reading(session: ReadSession, schema: Schema) -> AsyncSession:
    await session.execute(text(f"SET search_path TO {schema}"))  # restored before another request has the connection
    return session


async def writing(session: WriteSession, schema: Schema) -> AsyncSession:
    await session.execute(text(f"SET LOCAL search_path TO {schema}"))  # for this transaction
    return session


api = FastAPI(lifespan=lifespan(db))
app = CausalityMiddleware(api, secret=SECRET, route_header=True)


@api.post("/notes/{note}")
async def add(note: str, session: Annotated[AsyncSession, Depends(writing)]) -> None:
    await session.execute(text("INSERT INTO notes (text) VALUES (:text)"), {"text": note})


@api.get("/notes")
async def notes(session: Annotated[AsyncSession, Depends(reading)]) -> list[str]:
    return list(await session.scalars(text("SELECT text FROM notes")))
