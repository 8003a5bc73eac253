"""What a client in a crowd reads: everything that is committed when the read begins, from a replica that has it."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from lagwise import LSN, Causality, CausalToken, NoPrimary, NotCaughtUp, Policy, Reason, Router
from lagwise._client import known
from lagwise._client.cookies import Jar
from lagwise._client.memory_store import MemoryStore
from lagwise._client.signature import Seal
from lagwise._client.store import Principals
from lagwise._decide.token import SKEW, Position
from lagwise.testing import Cluster, wait_until
from tests.kit.application import SECRET, routed
from tests.kit.routers import both_in_rotation, router, steady
from tests.kit.serving import client, served
from tests.kit.sessions import count, write

CROWD = Jar(key=Seal(SECRET).mark).crowd


@asynccontextmanager
async def crowded(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[httpx.AsyncClient, str]]:
    """A client that got the cookie of a crowd, and the token that says no more than the position."""
    db = steady(cluster)
    async with served(routed(db)) as url, client(url) as http:
        monkeypatch.setattr(known, "processes", {"primary": 1000})
        for name in ("of a slot", "of the crowd"):
            http.cookies.clear()
            answer = await http.post(f"/items/{name}")
        await both_in_rotation(db)
        assert CROWD in http.cookies
        yield http, answer.headers["lagwise-token"]


async def read(db: Router, name: str) -> int:
    """How many items of this name a read sees."""
    async with db.read() as session:
        return await count(session, name)


@pytest.mark.parametrize("shared", [True, False], ids=["lagwise", "a shared cookie without a crowd"])
async def test_an_older_answer_that_arrives_last_covers_the_newer_one(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, shared: bool
) -> None:
    """Replay stands still, and the newer answer's cookie is overwritten. As a position alone the write is missed."""
    async with crowded(cluster, monkeypatch) as (http, exact):
        older = dict(http.cookies)
        await cluster.caught_up()
        for replica in cluster.replicas:
            await cluster.pause_replay(replica)
        newer = (await http.post("/items/newer")).json()
        http.cookies = httpx.Cookies(older if shared else {CROWD: exact})
        answer = await http.get(f"/items/{newer['id']}")
        assert answer.status_code == (200 if shared else 404)


async def test_a_replica_that_has_everything_serves(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """A crowd of many clients behind one address is no load for the primary."""
    async with crowded(cluster, monkeypatch) as (http, _):
        created = (await http.post("/items/one")).json()
        await cluster.caught_up()
        answers = [await http.get(f"/items/{created['id']}") for _ in range(20)]
        assert [answer.json()["replica"] for answer in answers] == [True] * 20


@pytest.mark.parametrize("policy", [{}, {"fall_back": False}, {"fall_back_limit": 0}], ids=str)
async def test_it_ends_with_the_window(cluster: Cluster, policy: dict[str, Any]) -> None:
    """Until then the primary serves what no replica can, also where the policy keeps reads off it."""
    async with router(cluster, Policy(probe_timeout=5, max_lag=60, sticky_window=60, **policy)) as db:
        await both_in_rotation(db)
        with Causality() as seen:
            await write(db, f"told at the end {policy}")
        await cluster.caught_up()
        (position,) = seen.token
        for replica in cluster.replicas:
            await cluster.pause_replay(replica)
        await write(db, "of another client")
        for ended, reason in (-30, Reason.STICKY if policy else Reason.ALL_LAGGING), (5, Reason.CAUGHT_UP):
            until = position.issued_at - 60 - int(SKEW) - ended
            with Causality(seen.token.crowded(until)) as later:
                assert await read(db, f"told at the end {policy}") == 1
            assert later.routes[-1].reason is reason


async def test_it_does_not_end_without_a_primary(cluster: Cluster) -> None:
    """Staleness has no bound then, so that an end by the clock would uncover replicas that miss the write."""
    policy = Policy(probe_timeout=1, probe_interval=0.2, max_lag=2, sticky_window=2, without_primary="serve")
    async with router(cluster, policy) as db:
        await both_in_rotation(db)
        with Causality() as seen:
            await write(db, "told before the primary went")
        token = CausalToken.of(seen.token.positions).crowded(1)
        await cluster.caught_up()
        await cluster.stop("primary")
        await wait_until(lambda: not db.view.fresh(time.monotonic() - policy.max_lag), what="staleness without a bound")
        with seen:
            assert await read(db, "told before the primary went") == 1
            assert seen.routes[-1].reason is Reason.NO_PRIMARY
        with Causality(token), pytest.raises(NoPrimary):
            await read(db, "told before the primary went")


async def test_a_session_that_is_open_stays_where_it_is(cluster: Cluster) -> None:
    """It was fresh when it was opened. What others write meanwhile is no reason to refuse its next statement."""
    async with router(cluster, Policy(probe_timeout=5, max_lag=60, sticky_window=60, guarantee="session")) as db:
        await both_in_rotation(db)
        with Causality() as before:
            await write(db, "before the session")
        await cluster.caught_up()
        with Causality(before.token.crowded(int(time.time()) + 60)) as seen:
            async with db.read.begin() as session:
                for _ in range(3):
                    assert await count(session, "before the session") == 1
                    with Causality():
                        await write(db, "of another client")
            assert seen.routes[-1].on_replica


async def test_a_deployment_waits_for_all_that_there_is(cluster: Cluster) -> None:
    """The token's own position is not all that its client was told."""
    async with router(cluster, Policy(probe_timeout=5, max_lag=60, sticky_window=60)) as db:
        await both_in_rotation(db)
        with Causality() as seen:
            await write(db, "first")
        await db.caught_up()
        for replica in cluster.replicas:
            await cluster.pause_replay(replica)
        await write(db, "second")
        assert await db.caught_up(seen.token, timeout=0.2) == seen.token
        with pytest.raises(NotCaughtUp):
            await db.caught_up(seen.token.crowded(1), timeout=0.2)


async def test_a_store_gets_a_doubt() -> None:
    """Another client of the principal brings no cookie of the crowd's."""
    store, seal = MemoryStore(), Seal("of this test")
    token = CausalToken.of([Position(system=7, timeline=1, lsn=LSN(5), issued_at=5)]).crowded(int(time.time()) + 60)
    principals = Principals(store, seal)
    await principals.recall("user:42", 5.0)
    await principals.remember(token, 1, 5.0)
    floor = (await Principals(store, seal).recall("user:42", 5.0)).floor(7)
    assert floor is not None
    assert floor.in_doubt(5.0, time.time())
