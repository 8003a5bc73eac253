"""Eager loading: parents and children come from one node, whichever strategy loads them."""

from typing import Any
from uuid import UUID

from fastapi import FastAPI
from sqlalchemy import select
from sqlalchemy.orm import joinedload, selectinload, subqueryload

from examples.patterns.database import SECRET, db
from examples.patterns.models import Comment, Post, User
from lagwise.fastapi import CausalityMiddleware, ReadSession, WriteSession, lifespan

api = FastAPI(lifespan=lifespan(db))
app = CausalityMiddleware(api, secret=SECRET, route_header=True)
STRATEGIES = {
    "selectin": selectinload(User.posts).selectinload(Post.comments),
    "joined": joinedload(User.posts).joinedload(Post.comments),
    "subquery": subqueryload(User.posts).subqueryload(Post.comments),
    "mixed": selectinload(User.posts).joinedload(Post.comments),
}


@api.post("/threads", status_code=201)
async def create(email: str, titles: list[str], session: WriteSession) -> UUID:
    author = User(email=email, posts=[Post(title=title, comments=[Comment(text="first")]) for title in titles])
    session.add(author)
    await session.flush()
    return author.id


@api.get("/threads/{user_id}")
async def show(user_id: UUID, strategy: str, session: ReadSession) -> dict[str, list[str]]:
    query = select(User).where(User.id == user_id).options(STRATEGIES[strategy])
    author = (await session.scalars(query)).unique().one()  # joinedload needs unique()
    return {post.title: [comment.text for comment in post.comments] for post in author.posts}


@api.get("/threads/{user_id}/refreshed")
async def refreshed(user_id: UUID, session: ReadSession) -> list[str]:
    author = await session.get_one(User, user_id)
    await session.refresh(author, ["posts"])  # the same node; was: MissingGreenlet at author.posts
    return [post.title for post in author.posts]


@api.put("/threads/{user_id}/name")
async def rename(user_id: UUID, name: str, session: WriteSession) -> dict[str, Any]:
    author = await session.get_one(User, user_id)
    author.name = name
    await session.commit()
    return {"name": author.name}  # still loaded: expire_on_commit is False by default
