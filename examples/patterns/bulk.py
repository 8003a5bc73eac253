"""Bulk statements: INSERT, UPDATE and DELETE with RETURNING, upserts, `rowcount`, COPY. All are writes."""

from typing import Any
from uuid import UUID, uuid4

from fastapi import FastAPI
from sqlalchemy import CursorResult, delete, func, insert, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncSession

from examples.patterns.database import SECRET, db
from examples.patterns.models import LIVING, User
from lagwise.fastapi import CausalityMiddleware, ReadSession, WriteAsyncpg, WriteSession, lifespan

api = FastAPI(lifespan=lifespan(db))
app = CausalityMiddleware(api, secret=SECRET, route_header=True)


async def row_count(session: AsyncSession, statement: Any) -> int:
    result = await session.execute(statement)
    assert isinstance(result, CursorResult)
    return result.rowcount


@api.post("/people", status_code=201)
async def create(emails: list[str], session: WriteSession) -> list[UUID]:
    rows = [{"email": email} for email in emails]
    return list(await session.scalars(insert(User).returning(User.id), rows))


@api.put("/people")
async def rename(emails: list[str], name: str, session: WriteSession) -> int:
    return await row_count(session, update(User).where(User.email.in_(emails)).values(name=name))


@api.put("/people/{email}")
async def create_or_rename(email: str, name: str, session: WriteSession) -> str:
    statement = upsert(User).values(email=email, name=name)
    statement = statement.on_conflict_do_update(
        index_elements=[func.lower(User.email)], index_where=LIVING, set_={"name": statement.excluded.name}
    )
    return str(await session.scalar(statement.returning(User.name)))


@api.delete("/people")
async def remove(emails: list[str], session: WriteSession) -> list[str]:
    return list(await session.scalars(delete(User).where(User.email.in_(emails)).returning(User.email)))


@api.post("/people/copy", status_code=201)
async def copy(emails: list[str], conn: WriteAsyncpg) -> None:
    rows = [(uuid4(), email, "copied", 0) for email in emails]
    await conn.copy_records_to_table("users", records=rows, columns=["id", "email", "name", "balance"])


@api.post("/people/names")
async def names(emails: list[str], session: ReadSession) -> list[str]:
    return list(await session.scalars(select(User.name).where(User.email.in_(emails)).order_by(User.email)))
