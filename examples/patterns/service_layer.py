"""A repository that gives frozen dataclasses, and a service layer that commits."""

from dataclasses import dataclass
from typing import Annotated
from uuid import UUID

from fastapi import Depends, FastAPI, HTTPException
from sqlalchemy import select

from examples.patterns.database import SECRET, db
from examples.patterns.models import LIVING, User
from examples.patterns.repository import BaseRepository
from lagwise.fastapi import CausalityMiddleware, ReadSession, WriteSession, lifespan


@dataclass(frozen=True, slots=True)
class Person:
    id: UUID
    email: str


class Users(BaseRepository[User]):
    model = User

    async def by_email(self, email: str) -> Person | None:
        user = await self.session.scalar(select(self.model).where(self.model.email == email, LIVING))
        return Person(user.id, user.email) if user else None

    async def register(self, email: str) -> Person:
        user = await self.add(User(email=email))
        return Person(user.id, user.email)


class Registration:  # the service: it alone knows where a unit of work ends
    def __init__(self, session: WriteSession) -> None:
        self.session, self.users = session, Users(session)

    async def __call__(self, email: str) -> Person:
        if found := await self.users.by_email(email):  # what decides a write is read in the write session
            return found
        person = await self.users.register(email)
        await self.session.commit()
        return person


api = FastAPI(lifespan=lifespan(db))
app = CausalityMiddleware(api, secret=SECRET, route_header=True)


@api.put("/users/{email}")
async def register(email: str, service: Annotated[Registration, Depends()]) -> Person:
    return await service(email)


@api.get("/users/{email}")
async def show(email: str, session: ReadSession) -> Person:
    if person := await Users(session).by_email(email):
        return person
    raise HTTPException(404)
