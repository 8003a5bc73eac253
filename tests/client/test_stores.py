"""What the stores of principals keep, and what they admit not to know."""

import asyncio
import contextlib
import logging
import os
import random
import time
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from redis import Redis as BlockingRedis
from redis.asyncio import Redis, RedisCluster

from lagwise import LSN, Causality, CausalToken
from lagwise._client import redis_presence
from lagwise._client.redis_scripts import BEAT, REMEMBER, parts_of
from lagwise._client.signature import Seal
from lagwise._client.store import Principals, name_of
from lagwise._client.store_log import StoreLog
from lagwise._decide.token import SKEW, Position, merged
from lagwise.store import MemoryStore, RedisStore
from lagwise.testing import wait_until
from tests.kit.contexts import Traced, trace
from tests.kit.principals import aged
from tests.kit.redis_server import RedisServer, redis_server

SEAL = Seal("for tests only")
WINDOW = 5.0
# For tests of what is kept: a busy machine is no outage.
CALM: dict[str, Any] = {"timeout": 2.0, "lease": 8.0}
HISTORIES = int(os.environ.get("LAGWISE_TEST_HISTORIES", "40"))


def token(lsn: int, *, system: int = 7, timeline: int = 1, issued: int = 1_000, doubt: int = 0) -> CausalToken:
    """What a client has seen of one cluster."""
    position = Position(system=system, timeline=timeline, lsn=LSN(lsn), issued_at=issued, in_doubt_at=doubt)
    return CausalToken.of([position])


def trusts(known: CausalToken) -> bool:
    """Whether a read may use a replica that has replayed these positions."""
    return known.position(0) is None


@pytest.fixture
async def redis(tmp_path: Path) -> AsyncIterator[RedisServer]:
    """A Redis of the test's own."""
    async with redis_server(tmp_path) as server:
        yield server


@contextlib.asynccontextmanager
async def members(redis: RedisServer, count: int = 2, **options: Any) -> AsyncIterator[list[RedisStore]]:
    """Stores of several processes on a Redis that has been there for long."""
    stores = [RedisStore(redis.url, **options) for _ in range(count)]
    for store in stores:
        await store.recall(name_of("anyone"), SEAL, WINDOW)
    await redis.age()
    for store in stores:
        await wait_until(partial(believed, store), what="the store is relied on")
    try:
        yield stores
    finally:
        for store in stores:
            await store.aclose()


async def believed(store: RedisStore, window: float = WINDOW) -> bool:
    """Whether the store answers for a principal that has written nothing."""
    return trusts(await store.recall(name_of("no one"), SEAL, window))


# What is kept


async def test_what_is_kept_is_what_merging_yields(redis: RedisServer) -> None:
    """Positions, acknowledgements and doubts of several clusters and timelines, in any order and from any process."""
    numbers = random.Random(12)
    memory = aged(MemoryStore())
    async with members(redis, **CALM) as stores:
        every: list[RedisStore | MemoryStore] = [*stores, memory]
        for history in range(HISTORIES):
            name, given = name_of(f"history {history}"), list[CausalToken]()
            for _ in range(numbers.randint(1, 8)):
                each = CausalToken.of(
                    Position(
                        system=numbers.choice([0, 7, 8, 2**63 + 11]),
                        timeline=(timeline := numbers.randint(0, 2)),
                        lsn=LSN(numbers.choice([0, 1, 255, 2**40]) if timeline else 0),
                        issued_at=numbers.randint(0, 3),
                        in_doubt_at=numbers.randint(0, 3),
                    )
                    for _ in range(numbers.randint(1, 3))
                )
                given.append(each)
                await numbers.choice(stores).remember(name, each, SEAL, WINDOW)
                await memory.remember(name, each, SEAL, WINDOW)
            known = [await one.recall(name, SEAL, WINDOW) for one in every]
            assert known == [_without_nothing(merged(given))] * 2 + [merged(given)]


def _without_nothing(seen: CausalToken) -> CausalToken:
    """A position that says nothing is not stored."""
    return CausalToken(tuple(p for p in seen if p.timeline or p.issued_at or p.in_doubt_at))


async def test_many_writes_at_once_merge_to_the_greatest(redis: RedisServer) -> None:
    """Two processes and one principal, each write an atomic step: none replaces a newer one."""
    async with members(redis, **CALM) as stores:
        name, order = name_of("busy"), [*range(1, 101)]
        random.Random(3).shuffle(order)
        await asyncio.gather(*(stores[lsn % 2].remember(name, token(lsn), SEAL, WINDOW) for lsn in order))
        assert [await store.recall(name, SEAL, WINDOW) for store in stores] == [token(100)] * 2


async def test_what_is_kept_expires_and_an_older_write_does_not_shorten_it(redis: RedisServer) -> None:
    """After the window and a minute, or when the store was told; by Redis, in which nothing else grows."""
    async with members(redis, 1, **CALM) as (store,):
        key = "{lagwise}:principal:" + name_of("brief")
        await store.remember(name_of("brief"), token(1), SEAL, 100.0)
        await store.remember(name_of("brief"), token(2), SEAL, WINDOW)
        assert (100 + SKEW - 10) * 1000 < int(await redis.ask("PTTL", key)) <= (100 + SKEW) * 1000
    async with members(redis, 1, **CALM, keep=3600.0) as (store,):
        await store.remember(name_of("long"), token(1), SEAL, WINDOW)
        assert int(await redis.ask("PTTL", "{lagwise}:principal:" + name_of("long"))) > 3_500_000


def test_names_are_bounded_and_do_not_collide() -> None:
    """Keys of any length and content: forty characters of Redis' own syntax, a megabyte, half a surrogate."""
    hostile = ["user:4", "user:42", "{x}:principal:user:42", "user:42\r\nFLUSHALL", "x" * 1_000_000, "\ud800", "*", "é"]
    assert len({name_of(key) for key in hostile}) == len(hostile)
    assert {len(name_of(key)) for key in hostile} == {64}


async def test_a_store_in_memory_forgets_nothing_silently(monkeypatch: pytest.MonkeyPatch) -> None:
    """At its limit a principal that was forgotten, and all unknown ones, read from the primary; the others do not."""
    store = aged(MemoryStore(principals=2))
    for number in range(3):
        await store.remember(name_of(f"user:{number}"), token(number + 1), SEAL, WINDOW)
    known = [await store.recall(name_of(f"user:{number}"), SEAL, WINDOW) for number in range(4)]
    assert [trusts(each) for each in known] == [False, True, True, False]
    # What is written again does not hide what was forgotten.
    await store.remember(name_of("user:0"), token(9), SEAL, WINDOW)
    assert not trusts(await store.recall(name_of("user:0"), SEAL, WINDOW))
    later = time.monotonic() + WINDOW + SKEW + 1
    monkeypatch.setattr(time, "monotonic", lambda: later)
    assert [await store.recall(name_of(f"user:{number}"), SEAL, WINDOW) for number in range(4)] == [CausalToken()] * 4


async def test_a_store_in_memory_knows_nothing_of_the_time_before_it() -> None:
    """A process that was just restarted does not take its empty memory for an answer."""
    young = MemoryStore()
    assert not trusts(await young.recall(name_of("before"), SEAL, WINDOW))
    assert trusts(await aged(MemoryStore()).recall(name_of("before"), SEAL, WINDOW))


async def test_a_store_in_memory_begins_with_its_first_use() -> None:
    """A process that takes long to start has not been there while the one before it went on writing."""
    store = MemoryStore()
    store._since -= 3600  # it was made an hour ago
    assert not trusts(await store.recall(name_of("before"), SEAL, WINDOW))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_store_in_memory_knows_nothing_of_the_time_before_a_fork() -> None:
    """A worker forked from an hour-old process trusts neither the age nor the content of the memory it was given."""
    store = aged(MemoryStore())
    asyncio.run(store.remember(name_of("known"), token(5), SEAL, WINDOW))
    receiving, sending = os.pipe()
    if (pid := os.fork()) == 0:
        try:
            known = [asyncio.run(store.recall(name_of(one), SEAL, WINDOW)) for one in ("known", "unknown")]
            os.write(sending, repr([trusts(each) for each in known]).encode())
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    assert os.read(receiving, 100) == b"[False, False]"
    assert asyncio.run(store.recall(name_of("known"), SEAL, WINDOW)) == token(5)


@pytest.mark.parametrize(
    "make",
    [
        lambda: MemoryStore(principals=0),
        lambda: MemoryStore(keep=-1),
        lambda: RedisStore("redis://localhost", timeout=0),
        lambda: RedisStore("redis://localhost", timeout=0.1, lease=0.2),
        lambda: RedisStore("redis://localhost", keep=float("inf")),
        lambda: RedisStore("http://localhost"),
    ],
)
def test_settings_that_make_no_sense_are_refused(make: Any) -> None:
    """When the store is made, not by each request."""
    with pytest.raises(ValueError, match=r"must be|URL"):
        make()


@pytest.mark.parametrize(
    "redis", [None, 7, BlockingRedis(), lambda: None], ids=["unset", "number", "blocking", "function"]
)
def test_what_is_no_redis_is_refused(redis: Any) -> None:
    """A variable that is not set, and a client that blocks: no request would fail by name, or at all."""
    with pytest.raises(ValueError, match=r"redis://.*redis\.asyncio"):
        RedisStore(redis)


async def test_clients_of_redis_asyncio_are_taken() -> None:
    """A client, also one of a class derived from it, and that of a Redis Cluster."""

    class Own(Redis):
        """An application's own."""

    clients: list[Any] = [Redis(), Own(), RedisCluster("localhost")]
    for client in clients:
        assert repr(RedisStore(client)) == "<RedisStore closed>"
        await client.aclose()


# What cannot be known


async def test_a_redis_that_has_not_been_there_for_a_window_is_not_relied_on(redis: RedisServer) -> None:
    """Restarted, emptied, or without room so that it evicted something: what was kept may be gone."""
    async with members(redis, **CALM) as (one, other):
        assert [await believed(one), await believed(other)] == [True, True]
        await redis.ask("FLUSHALL")
        assert [await believed(one), await believed(other)] == [False, False]
        await redis.age()
        assert await believed(other)
        await redis.ask("CONFIG", "SET", "maxmemory-policy", "allkeys-random")
        await redis.ask("SET", "somebody's", "x" * 1000)
        await redis.ask("CONFIG", "SET", "maxmemory", "1")
        await wait_until(lambda: _evicted(redis), what="Redis has evicted something")
        await redis.ask("CONFIG", "SET", "maxmemory", "0")
        assert not await believed(other)
        await redis.age()
        await wait_until(lambda: believed(other), what="it is relied on again")
        await redis.stop()
        await redis.start()
        assert not await believed(other)


async def _evicted(redis: RedisServer) -> bool:
    with contextlib.suppress(Exception):  # it may refuse the command itself
        await redis.ask("SET", "another's", "x" * 1000)
    await redis.ask("CONFIG", "SET", "maxmemory", "0")
    stats: dict[str, Any] = await redis.ask("INFO", "stats")
    await redis.ask("CONFIG", "SET", "maxmemory", "1")
    return int(stats["evicted_keys"]) > 0


async def test_a_process_that_cannot_store_is_heard_of_by_its_silence(redis: RedisServer) -> None:
    """One process alone loses Redis: it answers when the others no longer rely on it, and they do again afterwards."""
    async with members(redis) as (cut_off, other):
        presence = cut_off._presence()
        pool = presence._redis.connection_pool
        works, pool.connection_kwargs["port"] = redis.port, 1
        await pool.disconnect()
        pool.reset()
        await cut_off.remember(name_of("missed"), token(5), SEAL, WINDOW)
        assert not trusts(await other.recall(name_of("missed"), SEAL, WINDOW))
        assert not await believed(other)
        assert (
            await cut_off.recall(name_of("missed"), SEAL, WINDOW) != CausalToken()
        )  # it knows what it could not store
        pool.connection_kwargs["port"] = works
        pool.reset()
        await wait_until(lambda: believed(other), what="all is stored")
        assert await other.recall(name_of("missed"), SEAL, WINDOW) == token(5)


async def test_once_redis_is_known_to_be_gone_nothing_waits(redis: RedisServer) -> None:
    """The first write waits until its process is not relied on, the others do not; a read asks Redis no more."""
    async with members(redis, 1) as (store,):
        await redis.stop()
        clock = asyncio.get_running_loop().time
        await store.remember(name_of("first"), token(1), SEAL, WINDOW)
        assert store._presence()._lapses_at <= clock()
        began = clock()
        async with asyncio.timeout(1):
            for number in range(1000):
                await store.remember(name_of(f"next {number}"), token(1), SEAL, WINDOW)
                assert not trusts(await store.recall(name_of("anyone"), SEAL, WINDOW))
        assert clock() - began < 1


async def test_a_dead_process_is_waited_for_only_so_long(redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that was killed while it was heard of: its silence is distrusted, and then forgotten."""
    async with members(redis) as (killed, other):
        presence = killed._presence()
        presence._heart.cancel()
        await presence._redis.aclose()
        killed._at = None
        await wait_until(lambda: _not(believed(other)), what="its silence is noticed")
        # Not before the sticky window is over, however short the patience.
        monkeypatch.setattr(redis_presence, "PATIENCE", 0.5)
        assert other._presence()._patience > WINDOW * 1000
        other._presence()._window = 0.0
        await wait_until(partial(believed, other, 0.1), what="it is taken for dead")
        monkeypatch.setattr(redis_presence, "FORGOTTEN", 0.5)
        await wait_until(lambda: _is(redis.ask("ZCARD", "{lagwise}:processes"), 1), what="it is removed")


async def _not(asked: Any) -> bool:
    return not await asked


async def _is(asked: Any, what: Any) -> bool:
    return bool(await asked == what)


async def test_more_than_can_be_put_aside_is_not_forgotten(redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the limit the rest is dropped, and when Redis is back nothing counts as complete for a window."""
    monkeypatch.setattr(redis_presence, "_MOST_UNSAVED", 2)
    async with members(redis) as (one, other):
        redis.freeze()
        for number in range(3):
            await one.remember(name_of(f"aside {number}"), token(1), SEAL, WINDOW)
        redis.thaw()
        await wait_until(lambda: redis.ask("EXISTS", "{lagwise}:principal:" + name_of("aside 1")), what="stored")
        known = [await other.recall(name_of(f"aside {number}"), SEAL, WINDOW) for number in range(3)]
        assert not trusts(known[2])
        await wait_until(lambda: _is(_silent(one), False), what="it is heard of again")
        assert not await believed(other)
        await redis.age()
        assert await believed(other)


async def test_leaving_a_slow_redis_is_bounded(redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was put aside is stored one after the other, until other processes take this one for silent anyway."""
    one = RedisStore(redis.url, lease=0.5)
    await one.recall(name_of("anyone"), SEAL, WINDOW)
    presence = one._presence()
    stored = 0

    async def slowly(_redis: object, _ask: object) -> list[int]:
        nonlocal stored
        await asyncio.sleep(0.05)
        stored += 1
        return [1]

    redis.freeze()
    for number in range(10_000):  # 500 s of them
        presence._put_aside(name_of(f"aside {number}"), token(1), SEAL, WINDOW)
    redis.thaw()
    monkeypatch.setattr(redis_presence.Presence, "_bounded", slowly)
    async with asyncio.timeout(60):
        await one.aclose()
    assert stored < 1000
    assert presence._unsaved


async def test_a_principal_that_is_named_meanwhile_is_stored_for_too() -> None:
    """A second one is named while what was written is on its way to the store: it lacks that, and gets it next."""
    began, may_end = asyncio.Event(), asyncio.Event()

    class Slow(MemoryStore):
        async def remember(self, name: str, token: CausalToken, seal: Seal, window: float) -> None:
            began.set()
            await may_end.wait()
            await super().remember(name, token, seal, window)

    store = Slow()
    principals = Principals(store, SEAL)
    await principals.recall("first", WINDOW)
    storing = asyncio.create_task(principals.remember(token(5), 1, WINDOW))
    await began.wait()
    await principals.recall("second", WINDOW)
    may_end.set()
    await storing
    assert principals.lack(1)
    await principals.remember(token(5), 1, WINDOW)
    assert not principals.lack(1)
    assert (await store.recall(name_of("second"), SEAL, WINDOW)).position(7) == token(5).position(7)


async def _silent(store: RedisStore) -> bool:
    return not store._presence()._reachable


async def test_the_heart_of_a_store_beats_in_no_requests_context(redis: RedisServer) -> None:
    """The first request starts it; its trace, its user and its causality are not those of each beat from then on."""
    heard = list[tuple[object, ...]]()

    class Instrumented(Redis):
        """A client that looks at its caller's context, as an instrumentation does."""

        async def execute_command(self, *words: Any, **options: Any) -> Any:
            heard.append((trace.get(), Causality.current()))
            return await super().execute_command(*words, **options)  # type: ignore[no-untyped-call]

    async with Instrumented.from_url(redis.url) as client:
        store = RedisStore(client, lease=0.4)

        async def request() -> None:
            trace.set(Traced())
            with Causality():
                await store.recall(name_of("anyone"), SEAL, WINDOW)

        await asyncio.create_task(request())
        heard.clear()
        await wait_until(lambda: len(heard) > 2, what="three beats")
        assert {*heard} == {(None, None)}
        await store.aclose()


async def test_a_late_request_gives_no_lease(redis: RedisServer) -> None:
    """A request that lay in a buffer while Redis hung: its process has acknowledged writes, counting on its end."""
    async with members(redis, 1) as (store,), Redis.from_url(redis.url) as client:
        beat, asked = client.register_script(BEAT), list[list[int]]()
        keys = ["{lagwise}:run", "{lagwise}:processes"]
        now, *_, server = await beat(keys, ["late", 0, 0, 0, 1000, 60_000, ""])
        assert (await beat(keys, ["late", 750, now - 1, 0, 1000, 60_000, server]))[1] == 0
        # Nor one that was to reach another server.
        assert (await beat(keys, ["late", 750, now + 10_000, 0, 1000, 60_000, "another"]))[1] == 0
        assert await client.zscore(keys[1], "late") is None
        assert (await beat(keys, ["late", 750, now + 10_000, 0, 1000, 60_000, server]))[1] == 1
        # And each process asks so that its lease is over when it counts on that.
        presence, began = store._presence(), time.monotonic()
        gives = presence._beat

        async def asks(keys: list[str], arguments: list[Any]) -> Any:
            asked.append(arguments[1:3])
            return await gives(keys, arguments)

        presence._beat = asks
        assert await presence._renew()
        now = (await beat(keys, ["late", 0, 0, 0, 1000, 60_000, ""]))[0]
        assert asked[0][0] == 750
        assert asked[0][1] <= now + 250
        assert presence._lapses_at >= began + 1.0


@pytest.mark.parametrize(
    "spoil",
    [
        ["SET", "a string"],
        ["HSET", "7:position", "nonsense"],
        ["HSET", "7:position", "f" * 24 + " " + SEAL.sealed(token(5))],
        ["HSET", "8:position", f"{1:08x}{5:016x} " + SEAL.sealed(token(5))],
        ["HSET", "7:position", f"{1:08x}{5:016x} " + Seal("another's").sealed(token(5))],
        ["HSET", *(word for number in range(65) for word in (f"{number}:x", "y"))],
    ],
    ids=["type", "text", "rank", "system", "signature", "fields"],
)
async def test_what_somebody_else_wrote_is_not_believed(redis: RedisServer, spoil: list[str]) -> None:
    """It means the primary, for that principal alone; and a write puts it right, or leaves a doubt."""
    async with members(redis, 1, **CALM) as (store,):
        name = name_of("spoilt")
        await redis.ask(spoil[0], "{lagwise}:principal:" + name, *spoil[1:])
        assert not trusts(await store.recall(name, SEAL, WINDOW))
        assert await believed(store)
        await store.remember(name, token(9), SEAL, WINDOW)
        known = await store.recall(name, SEAL, WINDOW)
        assert not trusts(known) or known == token(9)
        assert int(await redis.ask("HLEN", "{lagwise}:principal:" + name)) <= 64


@pytest.mark.parametrize("kind", ["full", "no scripts", "no answer of Redis"])
async def test_a_redis_that_refuses_is_one_that_is_gone(redis: RedisServer, tmp_path: Path, kind: str) -> None:
    """Full, without Lua, or no Redis at all: nothing is raised, and reads use the primary."""
    if kind == "full":
        await redis.ask("CONFIG", "SET", "maxmemory", "1")
        url = redis.url
    elif kind == "no scripts":
        await redis.ask("ACL", "SETUSER", "default", "-@scripting")
        url = redis.url
    else:
        server = await asyncio.start_server(_garbage, "127.0.0.1", 0)
        url = f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    store = RedisStore(url)
    await store.remember(name_of("refused"), token(1), SEAL, WINDOW)
    assert not trusts(await store.recall(name_of("refused"), SEAL, WINDOW))
    assert not trusts(await store.recall(name_of("another"), SEAL, WINDOW))
    await store.aclose()
    if kind == "no answer of Redis":
        server.close()


async def _garbage(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(100)
    writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    with contextlib.suppress(ConnectionError):
        await writer.drain()
    writer.close()


async def test_a_redis_that_becomes_full_is_not_relied_on(redis: RedisServer) -> None:
    """No eviction, no room: what cannot be stored is told by silence, and stored when there is room."""
    async with members(redis) as (one, other):
        await redis.ask("CONFIG", "SET", "maxmemory", "1")
        await one.remember(name_of("full"), token(3), SEAL, WINDOW)
        assert not trusts(await other.recall(name_of("full"), SEAL, WINDOW))
        await redis.ask("CONFIG", "SET", "maxmemory", "0")
        await wait_until(lambda: believed(other), what="it is relied on again")
        assert await other.recall(name_of("full"), SEAL, WINDOW) == token(3)


async def test_a_secret_that_is_not_known_here_means_the_primary(redis: RedisServer) -> None:
    """In the middle of a rotation: another process signs with the new secret already."""
    async with members(redis, **CALM) as (one, other):
        name, both = name_of("rotated"), Seal("for tests only", "new")
        await one.remember(name, token(3), Seal("new"), WINDOW)
        assert not trusts(await other.recall(name, SEAL, WINDOW))
        assert await other.recall(name, both, WINDOW) == token(3)


async def test_the_log_says_once_that_the_store_is_lost_and_once_that_it_is_back(
    redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Two warnings for one outage, with the class of the error and no address."""
    async with members(redis, 1) as (store,):
        caplog.clear()
        await asyncio.sleep(0)
        store._presence()._log._quiet_until = 0.0
        redis.freeze()
        for _ in range(20):
            await store.recall(name_of("logged"), SEAL, WINDOW)
        redis.thaw()
        await wait_until(lambda: believed(store), what="it is relied on again")
    told = [(record.levelno, record.getMessage(), getattr(record, "reason", "")) for record in caplog.records]
    assert told == [
        (logging.WARNING, "store-lost: reason=TimeoutError", "TimeoutError"),
        (logging.WARNING, "store-back", ""),
    ]


async def test_a_store_that_comes_and_goes_is_told_of_at_a_bounded_rate(caplog: pytest.LogCaptureFixture) -> None:
    """A thousand changes in ten seconds are two warnings; a filter that raises is harmless."""
    log = StoreLog()
    for _ in range(1000):
        log.lost("TimeoutError")
        log.back()
    assert [record.getMessage() for record in caplog.records] == ["store-lost: reason=TimeoutError", "store-back"]


async def test_a_client_of_the_applications_own_stays_open(redis: RedisServer) -> None:
    """With decoded answers as well; closing the store closes what it opened, and its next use begins anew."""
    async with Redis.from_url(redis.url, decode_responses=True) as client:
        store = RedisStore(client, **CALM)
        await store.remember(name_of("own client"), token(1), SEAL, WINDOW)
        await redis.age()
        assert await store.recall(name_of("own client"), SEAL, WINDOW) == token(1)
        await store.aclose()
        assert await client.ping()
        assert await store.recall(name_of("own client"), SEAL, WINDOW) == token(1)
        await store.aclose()
        await store.aclose()


def test_another_event_loop_begins_anew() -> None:
    """Connections belong to a loop: a store that was used in one does not break in the next."""
    store = RedisStore("redis://127.0.0.1:1")

    async def use() -> bool:
        return trusts(await store.recall(name_of("loops"), SEAL, WINDOW))

    async def use_and_close() -> bool:
        try:
            return await use()
        finally:
            await store.aclose()

    assert [asyncio.run(use_and_close()), asyncio.run(use_and_close())] == [False, False]


async def test_a_script_merges_in_one_step(redis: RedisServer) -> None:
    """The greater of each part stays, whichever comes last."""
    async with Redis.from_url(redis.url, decode_responses=True) as client:
        merge = client.register_script(REMEMBER)
        for each in (token(5, doubt=3), token(4, issued=2_000), token(6, timeline=0, doubt=2)):
            assert (await merge(["key"], [1000, 0, *parts_of(each, SEAL)]))[0] == 1
        kept = {field: value[:24] for field, value in (await client.hgetall("key")).items()}
    assert kept == {"7:position": f"{1:08x}{5:016x}", "7:issued": f"{2000:024x}", "7:doubt": f"{3:024x}"}
