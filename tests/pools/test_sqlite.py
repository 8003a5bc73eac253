"""An application's unit tests on SQLite: the routed application as it is, without a server."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any

import pytest
from fastapi import FastAPI
from sqlalchemy import StaticPool, insert, select, text, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from lagwise import Causality, ReadOnly, Router
from lagwise.fastapi import ReadSession, RoutedSession, WriteSession, health_router, reads
from tests.kit.application import Base, Item
from tests.kit.http import application, serving

MEMORY = "memory"
FILE = "file"


@pytest.fixture(params=[FILE, MEMORY])
async def db(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Router]:
    """An open Router on SQLite, with the tables in it."""
    made = closed(request.param, tmp_path)
    async with made:
        await created(made)
        yield made


def closed(kind: str, directory: Path) -> Router:
    """A Router as a unit test would make it."""
    if kind == MEMORY:
        return Router("sqlite+aiosqlite://", poolclass=StaticPool)
    return Router(f"sqlite+aiosqlite:///{directory}/test.db")


async def created(db: Router) -> None:
    """The tables."""
    async with db.write.begin() as session:
        connection = await session.connection()
        await connection.run_sync(Base.metadata.create_all)


async def count(db: Router) -> int:
    """How many items there are."""
    async with db.read() as session:
        return len((await session.scalars(select(Item))).all())


async def test_reads_and_writes_work(db: Router) -> None:
    """What is written is read, and a session says that there are no replicas."""
    async with db.write.begin() as session:
        session.add(Item(name="one"))
        assert session.info["lagwise.route"].reason == "write"
    async with db.read() as session:
        assert (await session.scalars(select(Item.name))).all() == ["one"]
        assert str(session.info["lagwise.route"]) == "primary; reason=no-replicas"


async def test_a_connection_that_was_lent_is_kept(db: Router) -> None:
    """A database in memory is its connection: closed after `session.connection()`, all rows would be gone."""
    async with db.write.begin() as session:
        await session.connection()
        session.add(Item(name="one"))
    async with db.read() as session:
        await session.connection()
        assert len((await session.scalars(select(Item))).all()) == 1
    assert await count(db) == 1


async def test_an_error_rolls_back(db: Router) -> None:
    """As on PostgreSQL: nothing of the block stays."""
    with pytest.raises(IntegrityError):
        async with db.write.begin() as session:
            await session.execute(insert(Item).values(id=1, name="first"))
            await session.execute(insert(Item).values(id=1, name="again"))
    assert await count(db) == 0


WRITES: dict[str, Any] = {
    "Core insert": insert(Item).values(name="refused"),
    "Core update": update(Item).values(name="refused"),
    "text": text("INSERT INTO item (name) VALUES ('refused')"),
    "DDL": text("CREATE TABLE refused (id int)"),
    "returning": insert(Item).values(name="refused").returning(Item.id),
}


@pytest.mark.parametrize("options", [{}, {"snapshot": True}, {"primary": True}, {"max_staleness": 1.0}])
@pytest.mark.parametrize("statement", WRITES.values(), ids=WRITES)
async def test_a_write_in_a_read_session_is_refused(db: Router, statement: Any, options: dict[str, Any]) -> None:
    """ReadOnly, with the way out, and nothing written; the next write session may write."""
    async with db.write.begin() as session:
        session.add(Item(name="kept"))
    with pytest.raises(ReadOnly, match=r"db\.write instead of db\.read"):
        async with db.read(**options) as session:
            await session.execute(statement)
    async with db.read() as session:
        assert (await session.scalars(select(Item.name))).all() == ["kept"]
    async with db.write.begin() as session:
        session.add(Item(name="after"))
    assert await count(db) == 2


async def test_a_flush_in_a_read_session_is_refused(db: Router) -> None:
    """By the ORM as well, and committing it changes nothing."""
    with pytest.raises(ReadOnly):
        async with db.read() as session:
            session.add(Item(name="refused"))
            await session.commit()
    assert await count(db) == 0


async def test_sessions_open_at_once(db: Router) -> None:
    """A read session beside an open write session refuses writes, and does not stop the other from writing."""
    async with db.read() as reading:
        before = len((await reading.scalars(select(Item))).all())
        async with db.write.begin() as writing:
            writing.add(Item(name="beside"))
            await writing.flush()
            await reading.scalar(text("SELECT 1"))
            writing.add(Item(name="beside"))
        with pytest.raises(ReadOnly):
            await reading.execute(insert(Item).values(name="refused"))
    assert (before, await count(db)) == (0, 2)


async def test_no_token_is_made(db: Router) -> None:
    """One database is one truth: a causality stays empty."""
    with Causality() as seen:
        async with db.write.begin() as session:
            session.add(Item(name="untold"))
    assert (str(seen.token), bool(seen.token)) == ("", False)


@pytest.mark.parametrize("kind", [FILE, MEMORY])
async def test_the_routed_application(kind: str, tmp_path: Path) -> None:
    """The whole application: sessions by dependency, errors, no token anywhere, health."""
    db = closed(kind, tmp_path)
    app = application(db, route_header=True)
    app.include_router(health_router(db), prefix="/health")
    routes(app)
    async with serving(app) as client:
        await created(db)
        written = await client.post("/items/one")
        assert (written.status_code, "set-cookie" in written.headers) == (200, False)
        assert "lagwise-token" not in written.headers
        assert (await client.get("/items/one")).json() == 1
        assert (await client.get("/fresh/one")).json() == 1
        assert (await client.post("/routed/two")).json() == "write"
        assert (await client.get("/routed/two")).json() == "no-replicas"
        assert (await client.post("/conflict")).status_code == 500
        assert (await client.get("/writes")).status_code == 500
        assert (await client.get("/items/never")).json() == 0
        for path in ("/live", "/ready", "/ready?for=reads", "/ready?for=writes", "/nodes", "/pools"):
            health = await client.get(f"/health{path}")
            assert (health.status_code, health.json()["status"]) == (200, "pass")


def routes(app: FastAPI) -> None:
    """What an application does with sessions."""

    @app.post("/items/{name}")
    async def create(name: str, session: WriteSession) -> None:
        session.add(Item(name=name))

    @app.get("/items/{name}")
    async def show(name: str, session: ReadSession) -> int:
        return len((await session.scalars(select(Item).where(Item.name == name))).all())

    @app.get("/fresh/{name}")
    async def fresh(name: str, session: Annotated[AsyncSession, reads(max_staleness=0.5)]) -> int:
        return len((await session.scalars(select(Item).where(Item.name == name))).all())

    @app.api_route("/routed/{name}", methods=["GET", "POST"])
    async def routed(name: str, session: RoutedSession) -> str:
        await session.execute(select(Item).where(Item.name == name))
        return str(session.info["lagwise.route"].reason)

    @app.post("/conflict")
    async def conflict(session: WriteSession) -> None:
        session.add(Item(name="never"))
        await session.execute(insert(Item).values(id=1, name="never"))

    @app.get("/writes")
    async def writes(session: ReadSession) -> None:
        session.add(Item(name="never"))
        await session.flush()


async def test_requests_at_once(tmp_path: Path) -> None:
    """Twenty writes and twenty reads at a time, on a file: every write is there."""
    db = closed(FILE, tmp_path)
    app = application(db)
    routes(app)
    async with serving(app) as client:
        await created(db)
        answers = await asyncio.gather(
            *(client.post("/items/many") for _ in range(20)), *(client.get("/items/many") for _ in range(20))
        )
        assert {answer.status_code for answer in answers} == {200}
        assert (await client.get("/items/many")).json() == 20


async def test_a_file_outlives_the_router(tmp_path: Path) -> None:
    """A second Router on the same file finds what the first wrote."""
    async with closed(FILE, tmp_path) as first:
        await created(first)
        async with first.write.begin() as session:
            session.add(Item(name="kept"))
    async with closed(FILE, tmp_path) as second:
        assert await count(second) == 1
