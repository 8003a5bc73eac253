"""A Unit of Work over several repositories: one transaction on the primary, and one token when it commits."""

from types import TracebackType
from typing import Annotated, Self
from uuid import UUID

from fastapi import Depends, FastAPI, HTTPException
from sqlalchemy import select

from examples.patterns.database import SECRET, db
from examples.patterns.models import Post, User
from examples.patterns.repository import BaseRepository
from lagwise.fastapi import CausalityMiddleware, ReadSession, lifespan


class Users(BaseRepository[User]):
    model = User


class Posts(BaseRepository[Post]):
    model = Post


class UnitOfWork:
    async def __aenter__(self) -> Self:
        self.session = db.write()  # was: async_session_maker()
        self.users, self.posts = Users(self.session), Posts(self.session)
        return self

    async def commit(self) -> None:
        await self.session.commit()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.session.close()  # what is not committed is rolled back


api = FastAPI(lifespan=lifespan(db))
app = CausalityMiddleware(api, secret=SECRET, route_header=True)


@api.post("/authors", status_code=201)
async def create(email: str, title: str, work: Annotated[UnitOfWork, Depends()]) -> UUID:
    async with work:
        author = await work.users.add(User(email=email))
        await work.posts.add(Post(title=title, author_id=author.id))
        if not title:
            raise HTTPException(422, "a post needs a title")  # and there is no author either
        await work.commit()
    return author.id


@api.get("/authors/{email}")
async def titles(email: str, session: ReadSession) -> list[str]:
    found = await session.scalars(select(Post.title).join(Post.author).where(User.email == email))
    return list(found)
