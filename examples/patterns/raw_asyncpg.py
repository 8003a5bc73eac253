"""A raw asyncpg pool and its `Conn` dependency, replaced by two annotations; all SQL stays as it was."""

from typing import Any
from uuid import UUID, uuid4

import asyncpg  # type: ignore[import-untyped]
from fastapi import FastAPI, HTTPException

from examples.patterns.database import SECRET, db
from lagwise.fastapi import CausalityMiddleware, ReadAsyncpg, WriteAsyncpg, lifespan

# Was: Conn = Annotated[asyncpg.Connection, Depends(get_conn)], from a pool that lifespan opened.
ReadConn = ReadAsyncpg
WriteConn = WriteAsyncpg

api = FastAPI(lifespan=lifespan(db))
app = CausalityMiddleware(api, secret=SECRET, route_header=True)
INSERT = "INSERT INTO users (id, email, name, balance) VALUES ($1, $2, '', 0)"


@api.post("/users", status_code=201)
async def register(emails: list[str], conn: WriteConn) -> list[UUID]:
    made = []
    async with conn.transaction():  # a savepoint: the block is in a transaction already
        for email in emails:
            try:
                async with conn.transaction():  # one refused row undoes no other
                    await conn.execute(INSERT, new := uuid4(), email)
                    made.append(new)
            except asyncpg.UniqueViolationError:
                continue
    return made


@api.post("/users/import")
async def bulk_load(emails: list[str], conn: WriteConn) -> str:
    rows = [(uuid4(), email, "", 0) for email in emails]
    return str(await conn.copy_records_to_table("users", records=rows, columns=["id", "email", "name", "balance"]))


@api.post("/users/by-id")
async def several(ids: list[UUID], conn: ReadConn) -> list[str]:
    rows = await conn.fetch("SELECT email FROM users WHERE id = ANY($1::uuid[]) ORDER BY email", ids)
    return [row["email"] for row in rows]


@api.get("/users/{email}")
async def show(email: str, conn: ReadConn) -> dict[str, Any]:
    row = await conn.fetchrow("SELECT id, name FROM users WHERE email = $1", email)
    if row is None:
        raise HTTPException(404)
    return dict(row) | {"replica": await conn.fetchval("SELECT pg_is_in_recovery()")}


@api.put("/users/{email}/name")
async def rename(email: str, name: str, conn: WriteConn) -> bool:
    status = await conn.execute("UPDATE users SET name = $2 WHERE email = $1", email, name)
    return str(status) == "UPDATE 1"
