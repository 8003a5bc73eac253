"""Bookkeeping writes, `sticky=False`: committed as any other, and their client reads as if it had not written."""

from collections.abc import Awaitable, Callable

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from lagwise import Causality, NoPrimary, Policy, Reason, Router
from lagwise.testing import Cluster, wait_until
from tests.kit.application import Item
from tests.kit.routers import in_rotation, router
from tests.kit.sessions import count, write

_INSERT = "INSERT INTO item (name) VALUES ('{}')"


async def _orm(db: Router, name: str) -> None:
    async with db.write(sticky=False) as session:
        session.add(Item(name=name))
        await session.commit()


async def _block(db: Router, name: str) -> None:
    async with db.write.begin(sticky=False) as session:
        session.add(Item(name=name))


async def _driver(db: Router, name: str) -> None:
    async with db.write.asyncpg(sticky=False) as connection:
        await connection.execute("INSERT INTO item (name) VALUES ($1)", name)


async def _text(db: Router, name: str) -> None:
    async with db.write(sticky=False) as session:
        await session.execute(text(_INSERT.format(name)))
        await session.execute(text("COMMIT"))


async def _autocommit(db: Router, name: str) -> None:
    async with db.write(sticky=False) as session:
        await session.connection(execution_options={"isolation_level": "AUTOCOMMIT"})
        await session.execute(text(_INSERT.format(name)))


DOORS: dict[str, Callable[[Router, str], Awaitable[None]]] = {
    "a session": _orm, "a block": _block, "asyncpg": _driver, "COMMIT as text": _text, "AUTOCOMMIT": _autocommit,
}  # fmt: skip


@pytest.mark.parametrize("door", DOORS)
async def test_it_is_written_and_its_author_stays_free(still: Router, door: str) -> None:
    """No token, no doubt, and reads of the same client go on using replicas that lack the row."""
    name = f"stamp by {door}"
    with Causality() as seen:
        await DOORS[door](still, name)
        assert (seen.grew, seen.writing, str(seen.token)) == (False, False, "")
        async with still.read() as session:
            assert await count(session, name) == 0
            assert session.info["lagwise.route"].reason is Reason.FRESH
    async with still.read(primary=True) as session:
        assert await count(session, name) == 1


async def test_a_plain_write_makes_the_same_client_sticky(still: Router) -> None:
    """What the option is for: without it the same read is the primary's."""
    with Causality():
        await write(still, "no stamp")
        async with still.read() as session:
            assert await count(session, "no stamp") == 1
            assert session.info["lagwise.route"].node == "primary"


@pytest.mark.parametrize("last", ["plain", "bookkeeping"])
async def test_beside_a_plain_write_the_client_sticks(still: Router, last: str) -> None:
    """Whichever comes last, the token covers the plain one."""
    name = f"order before a {last} write"
    with Causality() as seen:
        if last == "plain":
            await _block(still, name + ", stamp")
        await write(still, name)
        if last == "bookkeeping":
            await _block(still, name + ", stamp")
        assert seen.grew
        async with still.read() as session:
            assert await count(session, name) == 1


async def test_two_sessions_open_at_once_do_not_share_their_kind(still: Router) -> None:
    """The bookkeeping session commits while the plain one is open, and the other way round."""
    with Causality() as seen:
        async with still.write() as plain, still.write(sticky=False) as stamp:
            plain.add(Item(name="plain beside a stamp"))
            stamp.add(Item(name="stamp beside a plain one"))
            await plain.flush()
            await stamp.flush()
            await stamp.commit()
            assert not seen.grew
            await plain.commit()
        assert seen.grew
        async with still.read() as session:
            assert await count(session, "plain beside a stamp") == 1


async def test_a_commit_in_doubt_leaves_nothing(cluster: Cluster, still: Router) -> None:
    """The network breaks under COMMIT: whether it was written is unknown, and the client does not mind."""
    with Causality() as seen:
        with pytest.raises((DBAPIError, OSError)):
            async with still.write(sticky=False) as session:
                session.add(Item(name="stamp in doubt"))
                await session.flush()
                await cluster.cut("primary")
                await session.commit()
        assert (seen.grew, str(seen.token)) == (False, "")


async def test_commit_does_not_ask_for_a_position(db: Router, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no token to make, so COMMIT is sent as it is."""
    asked: list[object] = []

    def ask(driver: object, **_: bool) -> bool:
        asked.append(driver)
        return False

    monkeypatch.setattr("lagwise._pools.placing.PlacingDriver.ask_with_commit", ask)
    with Causality():
        await _block(db, "stamp without a question")
        await _driver(db, "stamp without a question")
    assert asked == []


async def test_it_never_goes_to_a_primary_that_its_client_knows_to_be_deposed(doomed: Cluster) -> None:
    """It makes no token, and still heeds the one that its client brought."""
    policy = Policy(probe_interval=0.1, probe_timeout=1, max_lag=60, sticky_window=60)
    async with router(doomed, policy) as db:
        await in_rotation(db, "replica-1", "replica-2")
        with Causality() as seen:
            await doomed.promote("replica-1")
            await wait_until(lambda: db.view.timeline == 2, what="the promotion is seen")
            await write(db, "on the new primary")
        token = str(seen.token)
    await doomed.cut("replica-1")
    async with router(doomed, policy) as cut_off:
        with Causality(token), pytest.raises(NoPrimary):
            await _block(cut_off, "stamp on the old primary")


async def test_it_is_for_writes(db: Router) -> None:
    """A read makes no client sticky, so the option there is a mistake; and a write has no reading options."""
    with pytest.raises(ValueError, match=r"sticky is for db\.write"):
        db.read(sticky=False)
    with pytest.raises(ValueError, match=r"for db\.read"):
        db.write(sticky=False, snapshot=True)
