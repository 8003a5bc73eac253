"""COMMIT says where it stands, in its own message; where it cannot, it is asked, and nothing else changes."""

import inspect
from collections.abc import AsyncIterator, Callable

import asyncpg  # type: ignore[import-untyped]
import pytest
from asyncpg.transaction import Transaction  # type: ignore[import-untyped]
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from lagwise import Causality, Router
from lagwise._decide.token import Position
from lagwise._nodes.positions import Positions
from lagwise._pools import placing
from lagwise.testing import Cluster
from tests.kit.routers import quiet, router

Asked = Callable[[], int]
INSERT = text("INSERT INTO item (name) VALUES (:name)")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    """How often a position was asked for after a COMMIT."""
    calls: list[None] = []
    plain = Positions.after_commit

    async def counted(positions: Positions, driver: object) -> object:
        calls.append(None)
        return await plain(positions, driver)

    monkeypatch.setattr(Positions, "after_commit", counted)
    return lambda: len(calls)


@pytest.fixture
async def db(cluster: Cluster) -> AsyncIterator[Router]:
    """A Router that probes when it opens, and then only when it must."""
    async with quiet(cluster) as db:
        yield db


async def write(db: Router, *first: str) -> Causality:
    """Write in one transaction, after these statements; what the client has seen then."""
    with Causality() as seen:
        async with db.write.begin() as session:
            for statement in first:
                await session.execute(text(statement))
            await session.execute(INSERT, {"name": "placed"})
    return seen


def test_commit_is_sent_as_it_is_known_here() -> None:
    """Asyncpg's Transaction hands this very text to Connection.execute(): a new version that does not fails here."""
    assert f"query = '{placing.SENT}'" in inspect.getsource(Transaction)
    assert "self._connection.execute(query)" in inspect.getsource(Transaction)


async def test_the_position_is_what_the_question_answers(db: Router, asked: Asked) -> None:
    """The same cluster, timeline and position as one asked for: at most what the log holds now, and nobody asked."""
    (position,) = (await write(db)).token
    async with db.write() as session:
        end = await session.scalar(text("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn"))
    assert (position.system, position.timeline, position.in_doubt_at) == (db.view.system, 1, 0)
    assert 0 < position.lsn <= end
    assert asked() == 0


async def test_a_server_tells_once_who_it_is(db: Router, asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a connection's first COMMIT the control file is read; later ones tell position and timeline alone."""
    told: list[str] = []
    plain = placing.PlacingDriver.told_place

    def listening(driver: placing.PlacingDriver) -> Position | None:
        told.append(driver.told)
        return plain(driver)

    monkeypatch.setattr(placing.PlacingDriver, "told_place", listening)
    first, second = [position for _ in range(2) for position in (await write(db)).token]
    assert [len(text.split()) for text in told] == [6, 3]
    assert (second.system, second.timeline) == (first.system, first.timeline) == (db.view.system, 1)
    assert second.lsn > first.lsn
    assert asked() == 0


@pytest.mark.parametrize(
    "setting",
    [
        "SET LOCAL client_min_messages = error",
        "SET client_min_messages = error",
        "SET LOCAL search_path = nowhere",
        "SET search_path = nowhere, pg_catalog",
        "SET default_transaction_read_only = on",
        "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE",
        "SET standard_conforming_strings = off",
        "SET lc_messages = 'C'",
    ],
)
async def test_no_setting_of_the_session_hides_it(db: Router, asked: Asked, setting: str) -> None:
    """Filtered messages, another search_path, a read-only default: the position comes all the same."""
    with Causality() as seen:
        async with db.write.begin() as session:
            await session.execute(text("INSERT INTO item (name) VALUES ('set')"))
            await session.execute(text(setting))
    assert [position.lsn > 0 for position in seen.token] == [True]
    assert asked() == 0


async def test_a_commit_that_is_refused_is_no_write(cluster: Cluster, db: Router) -> None:
    """A deferred constraint fails at COMMIT: nothing was written, and the client is not in doubt."""
    await cluster.primary.execute(
        "CREATE TABLE later (id int PRIMARY KEY, above int REFERENCES later DEFERRABLE INITIALLY DEFERRED)"
    )
    with Causality() as seen:
        async with db.write() as session:
            await session.execute(text("INSERT INTO later VALUES (1, -1)"))
            with pytest.raises(DBAPIError, match="violates foreign key"):
                await session.commit()
    assert str(seen.token) == ""


@pytest.mark.parametrize("how", ["DROP EXTENSION plpgsql CASCADE", "REVOKE USAGE ON LANGUAGE plpgsql FROM PUBLIC"])
async def test_where_there_is_no_plpgsql_it_is_asked(doomed: Cluster, asked: Asked, how: str) -> None:
    """The write succeeds, its position is asked for in a question of its own, and the next one is not refused again."""
    await doomed.primary.execute("CREATE ROLE plain LOGIN; GRANT ALL ON ALL TABLES IN SCHEMA public TO plain")
    await doomed.primary.execute("GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO plain")
    await doomed.primary.execute(how)
    async with quiet(doomed) as db:
        for turn in range(1, 3):
            seen = await write(db, "SET ROLE plain")
            assert [position.lsn > 0 for position in seen.token] == [True]
            assert asked() == turn


def test_what_may_be_the_question_s_own_failure_leaves_a_doubt() -> None:
    """Cancelled or out of memory may be the question, after COMMIT; a constraint is always COMMIT itself."""

    class Said(Exception):
        def __init__(self, sqlstate: str) -> None:
            self.sqlstate = sqlstate

    doubted = {
        state: placing.may_have_succeeded(Said(state)) for state in ("57014", "53200", "23503", "40001", "P0001")
    }
    assert doubted == {"57014": True, "53200": True, "23503": False, "40001": False, "P0001": False}


async def test_a_connection_class_of_the_applications_own_commits(cluster: Cluster, asked: Asked) -> None:
    """It cannot tell in COMMIT's message, and is asked afterwards: to isinstance() it looks like one that can."""
    async with router(cluster, connect_args={"connection_class": asyncpg.Connection}) as db:
        before = asked()
        assert (await write(db)).grew
        assert asked() == before + 1
