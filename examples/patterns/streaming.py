"""A response that reads while it sends: the generator opens a snapshot session of its own."""

from collections.abc import AsyncIterator

from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from sqlalchemy import insert, select

from examples.patterns.database import SECRET, db
from examples.patterns.models import User
from lagwise.fastapi import CausalityMiddleware, ReadSession, WriteSession, lifespan

api = FastAPI(lifespan=lifespan(db))
app = CausalityMiddleware(api, secret=SECRET, route_header=True)


@api.post("/users", status_code=201)
async def register(emails: list[str], session: WriteSession) -> None:
    await session.execute(insert(User), [{"email": email} for email in emails])


@api.get("/export")
async def export(name: str) -> StreamingResponse:
    async def lines() -> AsyncIterator[str]:
        query = select(User.email).where(User.email.contains(name)).order_by(User.email)
        async with db.read(snapshot=True) as session:
            rows = await session.stream_scalars(query.execution_options(yield_per=100))
            async for part in rows.partitions():
                yield "".join(f"{email}\n" for email in part)

    return StreamingResponse(lines(), media_type="text/plain")


@api.get("/trap")
async def trap(session: ReadSession) -> StreamingResponse:
    async def lines() -> AsyncIterator[str]:
        for email in await session.scalars(select(User.email)):  # the session has ended: this raises
            yield f"{email}\n"

    return StreamingResponse(lines(), media_type="text/plain")
