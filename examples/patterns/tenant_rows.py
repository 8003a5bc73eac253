"""One table with a `tenant_id`: a session that adds the condition to every query of its tenant."""

from typing import Annotated

from fastapi import Depends, FastAPI, Header
from sqlalchemy import event, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, ORMExecuteState, Session, mapped_column, with_loader_criteria

from examples.patterns.database import PRIMARY, REPLICAS, SECRET
from lagwise import Router
from lagwise.fastapi import CausalityMiddleware, ReadSession, WriteSession, lifespan


class Base(DeclarativeBase):
    pass


class Note(Base):
    __tablename__ = "tenant_notes"
    id: Mapped[int] = mapped_column(primary_key=True)
    tenant_id: Mapped[str] = mapped_column(index=True)
    text: Mapped[str]


class TenantSession(Session):
    pass


@event.listens_for(TenantSession, "do_orm_execute")
def only_its_rows(state: ORMExecuteState) -> None:
    tenant = state.session.info["tenant"]  # KeyError: a query that belongs to no tenant is a mistake
    state.statement = state.statement.options(with_loader_criteria(Note, Note.tenant_id == tenant))


def reading(session: ReadSession, x_tenant: Annotated[str, Header()]) -> AsyncSession:
    session.info["tenant"] = x_tenant
    return session


db = Router(PRIMARY, REPLICAS, session_options={"sync_session_class": TenantSession})
api = FastAPI(lifespan=lifespan(db))
app = CausalityMiddleware(api, secret=SECRET, route_header=True)


@api.post("/notes/{note}")
async def add(note: str, session: WriteSession, x_tenant: Annotated[str, Header()]) -> None:
    session.add(Note(text=note, tenant_id=x_tenant))


@api.get("/notes")
async def notes(session: Annotated[AsyncSession, Depends(reading)]) -> list[str]:
    return list(await session.scalars(select(Note.text)))
