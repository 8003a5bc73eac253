"""fastapi-users: its SQLAlchemy adapter over a session that is chosen by the HTTP method."""

import uuid
from collections.abc import AsyncIterator
from typing import Annotated

import pytest

pytest.importorskip(
    "fastapi_users_db_sqlalchemy",
    reason="fastapi-users is not installed; it refuses SQLAlchemy 2.1: see CONTRIBUTING.md",
)

import httpx
from fastapi import Depends, FastAPI
from fastapi_users import BaseUserManager, FastAPIUsers, UUIDIDMixin, schemas
from fastapi_users.authentication import AuthenticationBackend, BearerTransport, JWTStrategy
from fastapi_users.password import PasswordHelper
from fastapi_users_db_sqlalchemy import SQLAlchemyBaseUserTableUUID, SQLAlchemyUserDatabase
from pwdlib import PasswordHash
from pwdlib.hashers.bcrypt import BcryptHasher
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import DeclarativeBase

from lagwise.fastapi import RoutedSession, lifespan
from lagwise.testing import Cluster
from tests.kit.routers import steady

from .promise import KEPT, kept_by

SECRET = "a secret of 32 bytes, for these tests"
PASSWORD = "correct horse"
QUICK = PasswordHelper(PasswordHash((BcryptHasher(rounds=4),)))  # a slow one would give replicas time to catch up


class Base(DeclarativeBase):
    pass


class Member(SQLAlchemyBaseUserTableUUID, Base):
    __tablename__ = "member"


class Members(SQLAlchemyUserDatabase[Member, uuid.UUID]):
    pass


class Manager(UUIDIDMixin, BaseUserManager[Member, uuid.UUID]):
    reset_password_token_secret = verification_token_secret = SECRET


async def members(session: RoutedSession) -> Members:
    """GET, and so the current user of a GET, from a replica; the rest on the primary."""
    return Members(session, Member)


async def manager(found: Annotated[Members, Depends(members)]) -> AsyncIterator[Manager]:
    yield Manager(found, QUICK)


def strategy() -> JWTStrategy[Member, uuid.UUID]:
    return JWTStrategy(SECRET, lifetime_seconds=60)


async def test_a_user_who_registered_is_known(lagging: Cluster) -> None:
    """Who registers and logs in is the current user of the next request; that is a read, and a replica's."""
    engine = create_async_engine(lagging.primary.direct_url)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    await engine.dispose()
    await lagging.caught_up()
    db = steady(lagging)
    app = FastAPI(lifespan=lifespan(db))
    backend = AuthenticationBackend("jwt", BearerTransport("/login"), strategy)
    users = FastAPIUsers[Member, uuid.UUID](manager, [backend])
    app.include_router(users.get_auth_router(backend))
    app.include_router(users.get_register_router(schemas.BaseUser[uuid.UUID], schemas.BaseUserCreate))
    app.include_router(users.get_users_router(schemas.BaseUser[uuid.UUID], schemas.BaseUserUpdate), prefix="/users")
    bearers: dict[str, str] = {}

    def address(name: str) -> str:
        return f"{name.replace(' ', '-')}@example.com"

    async def register(client: httpx.AsyncClient, name: str) -> httpx.Response:
        made = await client.post("/register", json={"email": address(name), "password": PASSWORD})
        assert made.status_code == 201
        entered = await client.post("/login", data={"username": address(name), "password": PASSWORD})
        bearers[name] = entered.json()["access_token"]
        return entered

    async def me(client: httpx.AsyncClient, name: str) -> httpx.Response:
        return await client.get("/users/me", headers={"Authorization": f"Bearer {bearers[name]}"})

    found = await kept_by(
        app, lagging, db, "users", write=register, read=me, count=lambda answer: answer.status_code == 200
    )
    assert found == KEPT
