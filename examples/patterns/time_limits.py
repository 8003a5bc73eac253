"""A limit for each statement, in place of `SET statement_timeout ... finally SET statement_timeout = 0`."""

from typing import Annotated

from fastapi import FastAPI, HTTPException
from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from examples.patterns.database import SECRET, db
from examples.patterns.models import LIVING, User
from lagwise import StatementTimeout
from lagwise.fastapi import CausalityMiddleware, lifespan, reads

api = FastAPI(lifespan=lifespan(db))
app = CausalityMiddleware(api, secret=SECRET, route_header=True)

Quick = Annotated[AsyncSession, reads(timeout=0.5)]  # seconds; the server stops working on it, too


@api.get("/users")
async def count(session: Quick) -> int:
    return await session.scalar(select(func.count()).select_from(User).where(LIVING)) or 0


@api.get("/report")
async def report(session: Quick, seconds: float) -> str:
    try:
        await session.execute(text("SELECT pg_sleep(:seconds)"), {"seconds": seconds})
    except StatementTimeout:
        raise HTTPException(504, "the report takes too long") from None
    return "done"
