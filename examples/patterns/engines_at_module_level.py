"""A module-level engine and session factory: the engine goes into a Router, the factory is `db.write`."""

from uuid import UUID

from fastapi import FastAPI, HTTPException
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from examples.patterns.database import PRIMARY, REPLICAS, SECRET
from examples.patterns.models import User
from lagwise import Router
from lagwise.fastapi import CausalityMiddleware, lifespan

# As in a function that is frozen between requests: no pool, a connection is opened and closed for each use.
engine = create_async_engine(PRIMARY, poolclass=NullPool)
replica_engines = [create_async_engine(url, poolclass=NullPool) for url in REPLICAS]

db = Router(engine, replica_engines)
async_session_maker = db.write  # was: async_sessionmaker(engine, expire_on_commit=False)
read_session_maker = db.read

api = FastAPI(lifespan=lifespan(db))
app = CausalityMiddleware(api, secret=SECRET, route_header=True)


@api.post("/users", status_code=201)
async def register(email: str) -> UUID:
    async with async_session_maker() as session, session.begin():
        session.add(user := User(email=email))
    return user.id


@api.get("/users/{user_id}")
async def show(user_id: UUID) -> str:
    async with read_session_maker() as session:
        if user := await session.get(User, user_id):
            return user.email
    raise HTTPException(404)
