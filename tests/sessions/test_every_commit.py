"""Every commit counts, whoever makes it: the client's next read shows it, while every replica stands still."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from lagwise import Causality, Router
from lagwise._client.causality import Commit
from lagwise._decide import parse
from lagwise.testing import Cluster
from tests.kit import parser
from tests.kit.routers import both_in_rotation, patient, stand_still
from tests.kit.sessions import count

_INSERT = "INSERT INTO item (name) VALUES ('{}')"
_PROCEDURE = """
CREATE OR REPLACE PROCEDURE write_and_commit(name text) LANGUAGE plpgsql AS
  $$ BEGIN INSERT INTO item (name) VALUES (name); COMMIT; END $$
"""


class Undone(Exception):
    """Ends a block, and rolls back what is open."""


async def _text(db: Router, name: str) -> None:
    async with db.write() as session:
        await session.execute(text(_INSERT.format(name)))
        await session.execute(text("/* done */ COMMIT"))


async def _text_and_rollback(db: Router, name: str) -> None:
    async with db.write.begin() as session:
        await session.execute(text(_INSERT.format(name)))
        await session.execute(text("END"))
        raise Undone


async def _text_and_session_rollback(db: Router, name: str) -> None:
    async with db.write() as session:
        await session.execute(text(_INSERT.format(name)))
        await session.execute(text("COMMIT"))
        await session.rollback()


async def _text_and_chain(db: Router, name: str) -> None:
    async with db.write() as session:
        await session.execute(text(_INSERT.format(name)))
        await session.execute(text("COMMIT AND CHAIN"))
        raise Undone


async def _autocommit_option(db: Router, name: str) -> None:
    async with db.write() as session:
        await session.connection(execution_options={"isolation_level": "AUTOCOMMIT"})
        await session.execute(text(_INSERT.format(name)))
        await session.rollback()


async def _procedure(db: Router, name: str) -> None:
    async with db.write() as session:
        await session.connection(execution_options={"isolation_level": "AUTOCOMMIT"})
        await session.execute(text(f"CALL write_and_commit('{name}')"))


async def _do(db: Router, name: str) -> None:
    async with db.write() as session:
        await session.connection(execution_options={"isolation_level": "AUTOCOMMIT"})
        await session.execute(text(f"DO $$ BEGIN {_INSERT.format(name)}; COMMIT; END $$"))


async def _raw(db: Router, name: str) -> None:
    async with db.write() as session:
        raw = await (await session.connection()).get_raw_connection()
        driver: Any = raw.driver_connection
        await driver.execute(_INSERT.format(name))


async def _raw_and_rollback(db: Router, name: str) -> None:
    async with db.write.begin() as session:
        await session.execute(text("SELECT 1"))
        raw = await (await session.connection()).get_raw_connection()
        driver: Any = raw.driver_connection
        await driver.execute(f"{_INSERT.format(name)}; COMMIT; BEGIN")
        raise Undone


async def _cursor(db: Router, name: str) -> None:
    def write(session: Session) -> None:
        cursor = session.connection().connection.cursor()
        cursor.execute(_INSERT.format(name))
        cursor.execute("COMMIT")

    async with db.write() as session:
        await session.run_sync(write)


async def _driver_text(db: Router, name: str) -> None:
    async with db.write.asyncpg() as connection:
        await connection.execute(_INSERT.format(name))
        await connection.execute("COMMIT")
        raise Undone


async def _driver_script(db: Router, name: str) -> None:
    async with db.write.asyncpg() as connection:
        await connection.execute(f"{_INSERT.format(name)}; COMMIT; BEGIN")
        raise Undone


async def _driver_long_script(db: Router, name: str) -> None:
    async with db.write.asyncpg() as connection:
        await connection.execute(f"{_INSERT.format(name)}; COMMIT; BEGIN -- {'x' * parse.LIMIT}")
        raise Undone


async def _driver_hidden(db: Router, name: str) -> None:
    async with db.write.asyncpg() as connection:
        await connection.execute("SET standard_conforming_strings = off")
        await connection.execute(_INSERT.format(name))
        await connection.execute(r"SELECT '\' || '; COMMIT; BEGIN; --'")
        raise Undone


async def _driver_prepared(db: Router, name: str) -> None:
    async with db.write.asyncpg() as connection:
        await connection.execute(_INSERT.format(name))
        await (await connection.prepare("COMMIT AND CHAIN")).fetch()
        raise Undone


async def _driver_procedure(db: Router, name: str) -> None:
    async with db.write.asyncpg() as connection:
        await connection.execute("ROLLBACK")
        await connection.execute("CALL write_and_commit($1)", name)
        raise Undone


KINDS = (
    _text, _text_and_rollback, _text_and_session_rollback, _text_and_chain, _autocommit_option, _procedure, _do, _raw,
    _raw_and_rollback, _cursor, _driver_text, _driver_script, _driver_long_script, _driver_hidden, _driver_prepared,
    _driver_procedure,
)  # fmt: skip
Kind = Callable[[Router, str], Awaitable[None]]


@pytest.fixture
async def procedure(cluster: Cluster) -> None:
    """A procedure that writes an item and commits."""
    await cluster.primary.execute(_PROCEDURE)


async def _seen_afterwards(db: Router, kind: Kind, name: str) -> int:
    with Causality():
        with suppress(Undone):
            await kind(db, name)
        async with db.read() as session:
            return await count(session, name)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_commit_that_no_session_made_is_seen(procedure: None, still: Router, kind: Kind) -> None:
    """COMMIT in SQL text, AUTOCOMMIT, a procedure that commits, the driver's own connection: the client sees it."""
    assert await _seen_afterwards(still, kind, f"seen {kind.__name__}") == 1


@pytest.mark.parametrize("kind", KINDS)
async def test_a_commit_in_a_text_that_is_not_parsed_is_seen(
    procedure: None, still: Router, kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the parser has no wheel, every kind of commit is seen as well."""
    parser.take_away(monkeypatch)
    assert await _seen_afterwards(still, kind, f"not parsed {kind.__name__}") == 1


async def test_where_every_statement_commits_each_is_seen(cluster: Cluster) -> None:
    """Router(isolation_level="AUTOCOMMIT"): nothing is left to commit, and the session may be rolled back or closed."""

    async def closed(db: Router, name: str) -> None:
        async with db.write() as session:
            await session.execute(text(_INSERT.format(name)))

    async def rolled_back(db: Router, name: str) -> None:
        async with db.write() as session:
            await session.execute(text(_INSERT.format(name)))
            await session.rollback()

    async with patient(cluster, isolation_level="AUTOCOMMIT") as db:
        await both_in_rotation(db)
        await stand_still(cluster)
        for kind in (closed, rolled_back):
            assert await _seen_afterwards(db, kind, f"each {kind.__name__}") == 1


@pytest.mark.parametrize("kind", KINDS)
async def test_a_token_for_the_session_s_own_commit_alone_misses_it(
    procedure: None, still: Router, kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The naive rule, a token when the session itself commits: none of these kinds is seen."""
    monkeypatch.setattr(Commit, "announce", lambda _: None)
    assert await _seen_afterwards(still, kind, f"missed {kind.__name__}") == 0


async def test_what_was_rolled_back_leaves_nothing(still: Router) -> None:
    """A transaction that nothing could have committed is no write, from a session and from the driver."""
    with Causality() as seen:
        async with still.write() as session:
            await session.execute(text(_INSERT.format("never")))
            await session.rollback()
        with suppress(Undone):
            async with still.write.asyncpg() as connection:
                await connection.execute(_INSERT.format("never"))
                raise Undone
    assert str(seen.token) == ""
