"""The mutation suite over HTTP: cookies, and the order of COMMIT and answer."""

import asyncio
from typing import Annotated, Any

import pytest
from fastapi import params
from sqlalchemy.ext.asyncio import AsyncSession

from lagwise.fastapi import CausalityMiddleware, WriteSession, write_session
from lagwise.testing import Cluster, wait_until

from . import mutants
from .application import SECRET
from .browsing import Browser, Gated, application, browsing, unopened, unwrapped
from .clients import pause
from .judging import BOTH, convicted, mutate

pytestmark = pytest.mark.usefixtures("register")


@BOTH
async def test_cookie_overwritten_by_the_older_answer(cluster: Cluster, key: str, bad: bool) -> None:
    """Two answers arrive in the wrong order: the newer write's token is still there."""
    app = application(unopened(cluster), WriteSession)
    gate = Gated(mutants.one_cookie(app) if bad else app)

    async def scenario(ann: Browser) -> None:
        gate.held[f"/{key}/older"] = asyncio.Event()
        older = asyncio.create_task(ann.ask(f"{key}/older"))
        await wait_until(lambda: f"/{key}/older" in gate.started, what="the older write is committed")
        await cluster.caught_up()
        await pause(cluster)
        await ann.ask(f"{key}/newer")
        gate.held[f"/{key}/older"].set()
        await older
        await ann.ask(key)

    assert convicted(await browsing(gate, scenario)) == ({"read-your-writes"} if bad else set())


@BOTH
async def test_slots_of_another_service(cluster: Cluster, monkeypatch: pytest.MonkeyPatch, key: str, bad: bool) -> None:
    """Two services on one host, each with its own secret: the answer of one leaves the other's token where it is."""
    mutate(monkeypatch, mutants.removes_unverified_slots, bad)
    app = unwrapped(unopened(cluster), WriteSession)
    ours, theirs = (CausalityMiddleware(app, secret=secret) for secret in (SECRET, f"{SECRET}, another"))

    async def by_path(scope: Any, *rest: Any) -> None:
        await (theirs if "-theirs" in scope.get("path", "") else ours)(scope, *rest)

    async def scenario(ann: Browser) -> None:
        await cluster.caught_up()
        await pause(cluster)
        await ann.ask(f"{key}/value")
        await ann.ask(f"{key}-theirs/another")
        await ann.ask(key)

    assert convicted(await browsing(by_path, scenario)) == ({"read-your-writes"} if bad else set())


LATE = Annotated[AsyncSession, params.Depends(write_session)]  # FastAPI's default scope: ends after the response


@pytest.mark.parametrize(
    ("writing", "hold", "bad"),
    [(WriteSession, 0.0, False), (LATE, 20.0, False), (LATE, 0.0, True)],
    ids=["lagwise", "held", "mutant"],
)
async def test_commit_after_the_response(cluster: Cluster, key: str, writing: Any, hold: float, bad: bool) -> None:
    """While COMMIT is held up no client has been told that the write is done, whoever commits."""
    gate = Gated(application(unopened(cluster), writing, hold=hold))
    await cluster.primary.execute(HOLD)
    try:
        async with cluster.primary.connect() as holder:

            async def scenario(ann: Browser) -> None:
                await holder.execute("SELECT pg_advisory_lock(42)")
                write = asyncio.create_task(ann.ask(f"{key}/value"))
                await wait_until(lambda: holder.fetchval(HELD), what="COMMIT is held up")
                if f"/{key}/value" in gate.started:
                    await write
                    await ann.ask(key)
                await holder.execute("SELECT pg_advisory_unlock(42)")
                await write
                await ann.ask(key)
                await wait_until(lambda: holder.fetchval(NOT_HELD), what="COMMIT is through")

            recorder = await browsing(gate, scenario)
    finally:
        await cluster.primary.execute("DROP TRIGGER hold ON entry; DROP FUNCTION hold")
    assert convicted(recorder) == ({"read-your-writes"} if bad else set())


HELD = "SELECT count(*) > 0 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
NOT_HELD = HELD.replace("> 0", "= 0")
HOLD = """
CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS
  'BEGIN PERFORM pg_advisory_xact_lock_shared(42); RETURN NULL; END';
CREATE CONSTRAINT TRIGGER hold AFTER INSERT ON entry DEFERRABLE INITIALLY DEFERRED
  FOR EACH ROW EXECUTE FUNCTION hold();
"""
