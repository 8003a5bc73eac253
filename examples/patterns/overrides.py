"""Endpoints that are not touched: `dependency_overrides` gives them routed sessions in place of their own."""

from collections.abc import AsyncIterator
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, FastAPI
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from examples.patterns.database import PRIMARY, SECRET, db
from examples.patterns.models import User
from lagwise.fastapi import CausalityMiddleware, lifespan, routed_session

# What is there, and stays as it is.
engine = create_async_engine(PRIMARY)
session_factory = async_sessionmaker(engine, expire_on_commit=False)
router = APIRouter()


async def get_session() -> AsyncIterator[AsyncSession]:
    async with session_factory() as session:
        try:
            yield session
            await session.commit()
        except Exception:
            await session.rollback()
            raise


@router.post("/people", status_code=201)
async def register(email: str, session: Annotated[AsyncSession, Depends(get_session)]) -> UUID:
    session.add(user := User(email=email))
    await session.flush()
    return user.id


@router.get("/people")
async def search(email: str, session: Annotated[AsyncSession, Depends(get_session)]) -> list[UUID]:
    return list(await session.scalars(select(User.id).where(User.email == email)))


# What is new: GET reads from replicas, every other method writes on the primary.
api = FastAPI(lifespan=lifespan(db))
api.include_router(router)
api.dependency_overrides[get_session] = routed_session
app = CausalityMiddleware(api, secret=SECRET, route_header=True)
