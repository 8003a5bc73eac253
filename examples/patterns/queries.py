"""Heavier reads, each one statement on a replica: window functions, EXISTS, a page with its count, ILIKE."""

from typing import Any

from fastapi import FastAPI
from sqlalchemy import exists, func, select

from examples.patterns.database import SECRET, db
from examples.patterns.models import LIVING, Post, User
from lagwise.fastapi import CausalityMiddleware, ReadSession, WriteSession, lifespan

api = FastAPI(lifespan=lifespan(db))
app = CausalityMiddleware(api, secret=SECRET, route_header=True)


@api.post("/posts", status_code=201)
async def publish(email: str, views: dict[str, int], session: WriteSession) -> None:
    session.add(User(email=email, posts=[Post(title=title, views=count) for title, count in views.items()]))


@api.get("/ranking/{email}")
async def ranking(email: str, session: ReadSession) -> list[tuple[str, int]]:
    rank = func.rank().over(partition_by=Post.author_id, order_by=Post.views.desc())
    rows = await session.execute(select(Post.title, rank).join(Post.author).where(User.email == email).order_by(rank))
    return [(title, place) for title, place in rows]


@api.get("/has-posts/{email}")
async def has_posts(email: str, session: ReadSession) -> bool:
    posts = exists().where(Post.author_id == User.id)
    return bool(await session.scalar(select(exists().where(User.email == email, LIVING, posts))))


@api.get("/page/{email}")
async def page(email: str, session: ReadSession, size: int = 2) -> dict[str, Any]:
    # One statement is one state: count and page agree. Two statements would want snapshot=True.
    query = select(Post.title, func.count().over()).join(Post.author).where(User.email == email)
    rows = (await session.execute(query.order_by(Post.title).limit(size))).all()
    return {"total": rows[0][1] if rows else 0, "titles": [title for title, _ in rows]}


@api.get("/search")
async def search(text: str, session: ReadSession) -> list[str]:
    found = await session.scalars(select(User.email).where(User.email.icontains(text, autoescape=True)).limit(20))
    return list(found)
