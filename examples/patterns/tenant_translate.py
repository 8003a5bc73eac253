"""A schema for each tenant by `schema_translate_map`: nothing is set on the connection at all."""

from typing import Annotated

from fastapi import Depends, FastAPI, Header
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from examples.patterns.database import SECRET, db
from lagwise.fastapi import CausalityMiddleware, ReadSession, WriteSession, lifespan


class Base(DeclarativeBase):
    pass


class Note(Base):
    __tablename__ = "notes"
    __table_args__ = {"schema": "tenant"}  # noqa: RUF012
    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]


async def of_tenant(session: AsyncSession, tenant: str) -> AsyncSession:
    await session.connection(execution_options={"schema_translate_map": {"tenant": tenant}})
    return session


async def reading(session: ReadSession, x_tenant: Annotated[str, Header()]) -> AsyncSession:
    return await of_tenant(session, x_tenant)


async def writing(session: WriteSession, x_tenant: Annotated[str, Header()]) -> AsyncSession:
    return await of_tenant(session, x_tenant)


api = FastAPI(lifespan=lifespan(db))
app = CausalityMiddleware(api, secret=SECRET, route_header=True)


@api.post("/notes/{note}")
async def add(note: str, session: Annotated[AsyncSession, Depends(writing)]) -> None:
    session.add(Note(text=note))


@api.get("/notes")
async def notes(session: Annotated[AsyncSession, Depends(reading)]) -> list[str]:
    return list(await session.scalars(select(Note.text)))
