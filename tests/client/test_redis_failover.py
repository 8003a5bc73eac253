"""A failover of Redis that processes notice one after the other: what one has stored, others ask another server for."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from lagwise import LSN, CausalToken
from lagwise._client.redis_scripts import BEAT
from lagwise._client.signature import Seal
from lagwise._client.store import name_of
from lagwise._decide.token import Position
from lagwise.store import RedisStore
from lagwise.testing import wait_until
from tests.kit.redis_server import RedisServer, redis_server

SEAL = Seal("for tests only")
WINDOW = 5.0
USER = name_of("user")
TOKEN = CausalToken.of([Position(system=7, timeline=1, lsn=LSN(5), issued_at=1_000)])
PROCESSES = "{lagwise}:processes"


def trusts(known: CausalToken) -> bool:
    """Whether a read may use a replica that has replayed these positions."""
    return known.position(0) is None


async def relies(store: RedisStore, name: str = name_of("no one")) -> bool:
    """Whether this process takes the store's answer for all there is."""
    return trusts(await store.recall(name, SEAL, WINDOW))


async def turned(store: RedisStore, server: RedisServer) -> None:
    """The address of Redis leads this process to another server from now on, and its connections have ended."""
    pool = store._presence()._redis.connection_pool
    pool.connection_kwargs["port"] = server.port
    await pool.disconnect()
    pool.reset()


async def lease_of(store: RedisStore, server: RedisServer) -> float:
    """When its lease runs out, as this server knows it; 0 for none."""
    return float(await server.ask("ZSCORE", PROCESSES, store._presence()._me) or 0)


async def heard_of(store: RedisStore, server: RedisServer, since: float = 0.0) -> bool:
    """Whether this process has a lease from this server that ends later than `since`."""
    seconds, micros = await server.ask("TIME")
    return await lease_of(store, server) > max(since, int(seconds) * 1000 + int(micros) / 1000)


async def arrived(store: RedisStore, server: RedisServer) -> None:
    """Wait until this process has a lease from this server that is no copy, since none was longer before."""
    copies = [float(score) for _, score in await server.ask("ZRANGE", PROCESSES, 0, -1, "WITHSCORES")]
    await wait_until(partial(heard_of, store, server, max(copies)), what="it has a lease")


@asynccontextmanager
async def split(folder: Path, **options: Any) -> AsyncIterator[tuple[RedisServer, RedisServer, RedisStore, RedisStore]]:
    """The old server and the one that was promoted beside it; two processes that are still with the old one."""
    async with redis_server(folder) as old, redis_server(folder, "--repl-diskless-sync-delay", "0") as new:
        stores = [RedisStore(old.url, **options) for _ in range(2)]
        for store in stores:
            await store.recall(USER, SEAL, WINDOW)
        await old.age()
        await new.ask("REPLICAOF", "127.0.0.1", old.port)

        def copied(store: RedisStore) -> Callable[[], Awaitable[bool]]:
            return partial(heard_of, store, new)

        for store in stores:
            await wait_until(partial(relies, store), what="the old server is relied on")
            await wait_until(copied(store), what="the new server has a copy of its lease")
        await new.ask("REPLICAOF", "NO", "ONE")
        try:
            yield old, new, stores[0], stores[1]
        finally:
            for store in stores:
                await store.aclose()


async def test_what_a_process_stored_in_the_old_server_is_missed_by_none(tmp_path: Path) -> None:
    """One process notices the failover late: when it arrives, nothing counts as complete for a window, for all."""
    async with split(tmp_path) as (_old, new, late, early):
        await turned(early, new)
        await arrived(early, new)
        await new.age()
        await late.remember(USER, TOKEN, SEAL, WINDOW)  # acknowledged: the old server still answers
        assert (await late.recall(USER, SEAL, WINDOW)).position(7) == TOKEN.position(7)
        await turned(late, new)
        assert not await relies(late, USER)
        assert not await relies(early, USER)
        await arrived(late, new)
        assert [await relies(late, USER), await relies(early, USER)] == [False, False]
        await new.age()
        for store in (late, early):
            await wait_until(partial(relies, store), what="the new server is relied on")
        await late.remember(USER, TOKEN, SEAL, WINDOW)
        assert await early.recall(USER, SEAL, WINDOW) == TOKEN


async def test_a_process_that_arrives_early_waits_until_the_old_server_does_not_vouch_for_it(tmp_path: Path) -> None:
    """It stores a write in the new server, and its lease in the old one, which others still ask, has not run out."""
    async with split(tmp_path, timeout=0.5, lease=2.0) as (_old, new, early, late):
        await turned(early, new)
        await early.remember(USER, TOKEN, SEAL, WINDOW)
        assert early._presence()._lapses_at <= time.monotonic()
        assert not await relies(late, USER)
        await arrived(early, new)
        assert await new.ask("EXISTS", "{lagwise}:principal:" + USER)


async def test_leases_that_the_old_server_gave_are_void_in_the_new_one(tmp_path: Path) -> None:
    """Its copy of a lease may outlast the window, and is not the process's word that it stores here."""
    async with split(tmp_path, timeout=2.0, lease=8.0) as (_old, new, late, early):
        await turned(early, new)
        await early.recall(USER, SEAL, WINDOW)
        async with Redis.from_url(new.url) as client:
            beat = client.register_script(BEAT)
            *_, silent, server = await beat(["{lagwise}:run", PROCESSES], ["another", 0, 0, 0, 30_000, 60_000, ""])
        assert server == (await new.ask("INFO", "server"))["run_id"].encode()
        assert silent >= 1
        assert not await heard_of(late, new)


@pytest.mark.parametrize("moved", [False, True], ids=["same server", "another server"])
async def test_a_goodbye_to_another_server_is_none(tmp_path: Path, moved: bool) -> None:
    """Shutting down in order removes a process where its writes are; elsewhere its silence goes on telling of them."""
    async with split(tmp_path) as (old, new, late, early):
        await turned(early, new)
        await arrived(early, new)
        presence = late._presence()
        presence._heart.cancel()  # it does not notice before it leaves
        if moved:
            await turned(late, new)
        await late.aclose()
        server = new if moved else old
        assert (await server.ask("ZSCORE", PROCESSES, presence._me) is not None) is moved
