"""A generic repository: it takes any session, and neither knows nor cares which node that is on."""

from typing import Generic, TypeVar
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from examples.patterns.models import Base

Model = TypeVar("Model", bound=Base)


class BaseRepository(Generic[Model]):
    model: type[Model]

    def __init__(self, session: AsyncSession) -> None:
        self.session = session

    async def get(self, key: UUID) -> Model | None:
        return await self.session.get(self.model, key)

    async def page(self, *, limit: int = 50, offset: int = 0) -> list[Model]:
        return list(await self.session.scalars(select(self.model).limit(limit).offset(offset)))

    async def add(self, entity: Model) -> Model:
        self.session.add(entity)
        await self.session.flush()  # not commit: that is the caller's
        return entity

    async def remove(self, key: UUID) -> bool:
        if (entity := await self.get(key)) is None:
            return False
        await self.session.delete(entity)
        return True
