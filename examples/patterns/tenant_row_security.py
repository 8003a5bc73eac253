"""PostgreSQL's row security: the tenant is set for one transaction, and the server shows nothing else.

CREATE POLICY own_rows ON secured_notes USING (tenant_id = current_setting('app.tenant'));
ALTER TABLE secured_notes ENABLE ROW LEVEL SECURITY;
ALTER TABLE secured_notes FORCE ROW LEVEL SECURITY;  -- the owner as well
"""

from typing import Annotated

from fastapi import Depends, FastAPI, Header
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from examples.patterns.database import SECRET, db
from lagwise.fastapi import CausalityMiddleware, ReadSession, WriteSession, lifespan


class Base(DeclarativeBase):
    pass


class Note(Base):
    __tablename__ = "secured_notes"
    id: Mapped[int] = mapped_column(primary_key=True)
    tenant_id: Mapped[str] = mapped_column(server_default=text("current_setting('app.tenant')"))
    text: Mapped[str]


# As `SET LOCAL app.tenant = ...`, with a parameter: a read session begins its transaction here.
SET_LOCAL = text("SELECT set_config('app.tenant', :tenant, true)")


async def reading(session: ReadSession, x_tenant: Annotated[str, Header()]) -> AsyncSession:
    await session.execute(SET_LOCAL, {"tenant": x_tenant})
    return session


async def writing(session: WriteSession, x_tenant: Annotated[str, Header()]) -> AsyncSession:
    await session.execute(SET_LOCAL, {"tenant": x_tenant})
    return session


api = FastAPI(lifespan=lifespan(db))
app = CausalityMiddleware(api, secret=SECRET, route_header=True)


@api.post("/notes/{note}")
async def add(note: str, session: Annotated[AsyncSession, Depends(writing)]) -> None:
    session.add(Note(text=note))


@api.get("/notes")
async def notes(session: Annotated[AsyncSession, Depends(reading)]) -> list[str]:
    return list(await session.scalars(select(Note.text)))
