"""From constructing to closing: nothing before, everything between, nothing after."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest
from fastapi import FastAPI
from sqlalchemy import event, make_url, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from lagwise import Causality, NotOpen, Policy, Replica, Router, RoutingError
from lagwise.fastapi import lifespan
from lagwise.testing import Cluster, wait_until
from tests.kit.http import IN_RECOVERY, opened
from tests.kit.routers import QUIET, both_in_rotation, in_rotation, router, steady

URL = "postgresql+asyncpg://nobody@localhost/nothing"
SELECT = text("SELECT 1")
APPLICATION = "lifecycle"
# Who is connected under the application's name, or as its user.
CONNECTED = "SELECT count(*) FROM pg_stat_activity WHERE application_name = $1 OR usename = $1"


def connections(cluster: Cluster) -> int:
    """Connections made so far, to all nodes."""
    return sum(node.proxy.connections for node in cluster.nodes.values())


def pending() -> set[asyncio.Task[Any]]:
    """The tasks there are, but for those of the test cluster's proxies."""
    return {task for task in asyncio.all_tasks() if "Proxy" not in repr(task.get_coro())}


async def connected(cluster: Cluster, name: str = APPLICATION) -> int:
    """Connections of the application that the servers themselves see."""
    counts = [await node.fetchval(CONNECTED, name) for node in cluster.nodes.values()]
    return sum(counts)


@pytest.fixture(scope="session")
async def user(running: Cluster) -> tuple[str, str]:
    """An ordinary role, as an application should have: it may read and write its table, and nothing else."""
    await running.primary.execute(
        "CREATE ROLE ordinary LOGIN PASSWORD 'ordinary'; GRANT SELECT, INSERT ON item TO ordinary;"
        "GRANT USAGE ON SEQUENCE item_id_seq TO ordinary"
    )
    await running.caught_up()
    return "ordinary", "ordinary"


@pytest.fixture
async def engines(cluster: Cluster) -> AsyncIterator[dict[str, AsyncEngine]]:
    """An engine of the user's own for every node."""
    made = {name: create_async_engine(node.url) for name, node in cluster.nodes.items()}
    yield made
    for engine in made.values():
        await engine.dispose()


# Constructing does nothing


async def test_constructing_a_router_does_nothing(cluster: Cluster) -> None:
    """No connection, no task, and no loop needed: a module may construct its Router when it is imported."""
    before, tasks = connections(cluster), pending()
    db = steady(cluster)
    FastAPI(lifespan=lifespan(db))
    await asyncio.sleep(0)
    assert (connections(cluster), pending()) == (before, tasks)
    await asyncio.to_thread(router, cluster)


def test_constructing_needs_no_event_loop() -> None:
    """At import time there is none."""
    assert Router(URL, [URL]).policy == Policy()


@pytest.mark.parametrize("make", ["read", "write"])
async def test_a_closed_router_refuses_sessions(cluster: Cluster, make: str) -> None:
    """Before it is opened and after it was closed: NotOpen, which says how to open it."""
    db = steady(cluster)
    for _ in range(2):
        with pytest.raises(NotOpen, match="async with router") as refused:
            getattr(db, make)()
        assert "lifespan=lifespan(router)" in str(refused.value)
        with pytest.raises(NotOpen):
            getattr(db, make).begin()
        with pytest.raises(NotOpen):
            _ = db.view
        async with db:
            pass


async def test_a_session_outlived_by_its_router_is_refused(cluster: Cluster) -> None:
    """A session that was made in time and used too late gets the named error."""
    async with steady(cluster) as db:
        session = db.read()
    with pytest.raises(NotOpen):
        await session.execute(SELECT)
    await session.close()


# Closing leaves nothing


async def test_closing_leaves_no_task_and_no_connection(cluster: Cluster, user: tuple[str, str]) -> None:
    """As an ordinary user, after reads and writes on every node: asked of the servers, nobody is left."""
    name, password = user
    urls = {key: make_url(node.url).set(username=name, password=password) for key, node in cluster.nodes.items()}
    tasks = pending()
    app = FastAPI(lifespan=lifespan(db := Router(urls.pop("primary"), urls)))
    async with opened(app):
        await both_in_rotation(db)
        with Causality():
            async with db.write.begin() as session:
                await session.execute(text("INSERT INTO item (name) VALUES ('lifecycle')"))
            async with db.read() as session:
                assert await session.scalar(text("SELECT count(*) FROM item WHERE name = 'lifecycle'")) == 1
        for replica in urls:
            db.drain(replica)
            async with db.read(snapshot=True) as session:
                assert await session.scalar(IN_RECOVERY) is True
            db.undrain(replica)
        assert await connected(cluster, name) >= 5
    assert pending() == tasks
    await wait_until(lambda: gone(cluster, name), what="no connection of the application is left")


async def gone(cluster: Cluster, name: str = APPLICATION) -> bool:
    """Whether the servers see none of the application's connections."""
    return await connected(cluster, name) == 0


async def test_closing_leaves_nothing_when_the_body_fails(cluster: Cluster) -> None:
    """An exception goes through, and everything is closed all the same."""
    tasks = pending()
    db = steady(cluster, connect_args={"server_settings": {"application_name": APPLICATION}})
    with pytest.raises(RuntimeError, match="in the body"):
        async with db:
            async with db.read() as session:
                await session.execute(SELECT)
            raise RuntimeError("in the body")
    assert pending() == tasks
    await wait_until(lambda: gone(cluster), what="no connection of the application is left")


async def test_closing_while_nodes_are_silent(cluster: Cluster) -> None:
    """A shutdown does not wait for servers that do not answer."""
    tasks = pending()
    db = router(cluster, Policy(probe_interval=0.05, probe_timeout=0.2))
    async with asyncio.timeout(10):
        async with db:
            await both_in_rotation(db)
            for name in cluster.nodes:
                await cluster.black_hole(name)
            await wait_until(lambda: all(node.reading is None for node in db.view.nodes), what="all nodes are gone")
    assert pending() == tasks


SCRIPT = """
import asyncio, gc, os
from fastapi import FastAPI
from sqlalchemy import text
from lagwise import Causality, Router
from lagwise.fastapi import lifespan

async def main():
    asyncio.get_running_loop().slow_callback_duration = 60  # a slow machine is no warning
    db = Router(os.environ["PRIMARY"], os.environ["REPLICAS"].split(","))
    app = FastAPI(lifespan=lifespan(db))
    async with app.router.lifespan_context(app):
        with Causality() as seen:
            async with db.write.begin() as session:
                await session.execute(text("INSERT INTO item (name) VALUES ('script')"))
            for options in ({}, {"snapshot": True}, {"primary": True}):
                async with db.read(**options) as session:
                    await session.execute(text("SELECT 1"))
        try:
            async with db.read() as session:
                await session.execute(text("INSERT INTO item (name) VALUES ('refused')"))
        except Exception as error:
            print(type(error).__name__)
        assert seen.token
    left = asyncio.all_tasks() - {asyncio.current_task()}
    assert not left, left

asyncio.run(main())
gc.collect()
print("done")
"""


async def test_no_warning_in_development_mode(cluster: Cluster) -> None:
    """`python -X dev -W error` over a whole life: no ResourceWarning, no unawaited coroutine, nothing on stderr."""
    environment = {
        **os.environ,
        "PRIMARY": cluster.primary.direct_url,
        "REPLICAS": ",".join(node.direct_url for node in cluster.replicas),
    }
    ran = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-X", "dev", "-W", "error", "-c", SCRIPT],
        env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (ran.stderr, ran.stdout, ran.returncode) == ("", "ReadOnly\ndone\n", 0)


# Engines of the user's own


def listeners(engine: AsyncEngine) -> dict[str, int]:
    """How many listeners an engine, its pool and its dialect have, by event."""
    sync = engine.sync_engine
    counts = {}
    for target in (sync, sync.pool, sync.dialect):
        for name in dir(target.dispatch):
            found = getattr(target.dispatch, name)
            if not name.startswith("_") and hasattr(found, "__len__"):
                counts[f"{type(target).__name__}.{name}"] = len(found)
    return counts


async def test_engines_of_the_user_stay_the_users(cluster: Cluster, engines: dict[str, AsyncEngine]) -> None:
    """After the Router they have their pool, their own listeners, none of ours, and they work."""
    heard: list[str] = []
    for name, engine in engines.items():
        event.listen(engine.sync_engine.pool, "checkout", lambda *_, name=name: heard.append(name))
    pools = {name: engine.sync_engine.pool for name, engine in engines.items()}
    before = {name: listeners(engine) for name, engine in engines.items()}
    async with Router(engines["primary"], {n: e for n, e in engines.items() if n != "primary"}, policy=QUIET) as db:
        await both_in_rotation(db)
        async with db.write.begin() as session:
            await session.execute(text("INSERT INTO item (name) VALUES ('my engine')"))
        for replica in ("replica-1", "replica-2"):
            db.drain(replica)
            async with db.read() as session:
                await session.execute(SELECT)
            db.undrain(replica)
        assert {name: listeners(engine) != before[name] for name, engine in engines.items()} == dict.fromkeys(
            engines, True
        )
    assert {name: listeners(engine) for name, engine in engines.items()} == before
    assert {name: engine.sync_engine.pool for name, engine in engines.items()} == pools
    assert set(heard) == set(engines)
    assert pools["primary"].checkedin() > 0  # type: ignore[attr-defined]  # reads have pools of their own
    for name, engine in engines.items():
        async with engine.begin() as connection:
            assert await connection.scalar(IN_RECOVERY) is (name != "primary")
            assert await connection.scalar(text("SELECT current_setting('transaction_isolation')")) == "read committed"


async def test_a_users_primary_engine_may_be_used_beside_the_router(
    cluster: Cluster, engines: dict[str, AsyncEngine]
) -> None:
    """The owner's transactions, savepoints and errors are the owner's while the Router is open, too."""
    mine = engines["primary"]
    async with Router(mine, {"replica-1": engines["replica-1"]}) as db:
        await in_rotation(db, "replica-1")
        async with mine.begin() as connection, connection.begin_nested():
            await connection.execute(text("INSERT INTO item (name) VALUES ('beside the router')"))
        async with mine.connect() as connection:
            await connection.execute(text("SET default_transaction_read_only = on"))
            await connection.commit()
            with pytest.raises(Exception, match="read-only") as refused:
                await connection.execute(text("INSERT INTO item (name) VALUES ('refused')"))
            assert not isinstance(refused.value, RoutingError)
            await connection.invalidate()
        async with db.write.begin() as session:
            await session.execute(text("INSERT INTO item (name) VALUES ('still')"))


async def test_a_stale_pool_of_the_user_is_not_disposed(cluster: Cluster, engines: dict[str, AsyncEngine]) -> None:
    """A transaction the owner has open when the Router closes goes on."""
    mine = engines["primary"]
    async with mine.connect() as connection:
        async with Router(mine) as db, db.read() as session:
            await session.execute(SELECT)
        assert await connection.scalar(SELECT) == 1


# Opening


async def test_a_router_can_be_opened_again(cluster: Cluster) -> None:
    """Closed is not used up: the same Router serves again, drains included, and leaves nothing again."""
    tasks = pending()
    db = steady(cluster, connect_args={"server_settings": {"application_name": APPLICATION}})
    for turn in range(3):
        async with db:
            await (both_in_rotation(db) if turn < 2 else in_rotation(db, "replica-2"))
            async with db.read() as session:
                assert await session.scalar(IN_RECOVERY) is True
            async with db.write.begin() as session:
                await session.execute(SELECT)
            if turn == 1:
                db.drain("replica-1")
        assert pending() == tasks
        await wait_until(lambda: gone(cluster), what="no connection of the application is left")


async def test_a_router_is_opened_once_at_a_time(cluster: Cluster) -> None:
    """A second `async with` while it is open is a mistake, and does not disturb the first."""
    async with steady(cluster) as db:
        with pytest.raises(RuntimeError, match="open already"):
            async with db:
                pass
        async with db.read() as session:
            assert await session.scalar(SELECT) == 1


async def test_opening_may_be_cancelled(cluster: Cluster) -> None:
    """A start-up that is cut off while servers are silent leaves no task and no connection; the next one works."""
    tasks = pending()
    options = {"connect_args": {"server_settings": {"application_name": APPLICATION}}}
    db = router(cluster, Policy(probe_timeout=5), **options)
    for name in cluster.nodes:
        await cluster.black_hole(name)
    opening = asyncio.ensure_future(db.__aenter__())
    await wait_until(lambda: any(task.get_name() == "lagwise-monitor" for task in pending()), what="probing")
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        async with asyncio.timeout(5):
            await opening
    assert pending() - {opening} == tasks
    with pytest.raises(NotOpen):
        _ = db.view
    await cluster.heal()
    async with db:
        await both_in_rotation(db)
    await wait_until(lambda: gone(cluster), what="no connection of the application is left")


async def test_drains_and_their_names(cluster: Cluster) -> None:
    """A drain before opening holds; a name that nobody has is a KeyError that tells the names."""
    db = steady(cluster)
    db.drain("replica-1")
    with pytest.raises(KeyError, match="primary, replica-1, replica-2"):
        db.drain("replica-3")
    async with db:
        await in_rotation(db, "replica-2")
        db.undrain("replica-1")
        await both_in_rotation(db)


# What the constructor refuses


REFUSED: dict[str, tuple[tuple[Any, ...], dict[str, Any], str]] = {
    "no primary": (("",), {}, "primary is missing"),
    "None for a primary": ((None,), {}, "primary is missing"),
    "replicas as one string": ((URL, URL), {}, "not a single URL"),
    "replicas as one URL": ((URL, make_url(URL)), {}, "not a single URL"),
    "a replica called primary": ((URL, {"primary": URL}), {}, "name of the primary"),
    "bind": ((URL,), {"session_options": {"bind": object()}}, "bind or binds"),
    "binds": ((URL,), {"session_options": {"binds": {}}}, "bind or binds"),
    "replicas without PostgreSQL": (("sqlite+aiosqlite://", [URL]), {}, "replicas need PostgreSQL"),
    "a replica without PostgreSQL": ((URL, ["sqlite+aiosqlite://"]), {}, "replicas need PostgreSQL"),
}


@pytest.mark.parametrize(("args", "options", "says"), REFUSED.values(), ids=REFUSED)
def test_the_constructor_refuses(args: tuple[Any, ...], options: dict[str, Any], says: str) -> None:
    """A mistake in the configuration is a ValueError where it is made, and names the setting."""
    with pytest.raises(ValueError, match=says):
        Router(*args, **options)


@pytest.mark.parametrize("weight", [0, -1, float("nan"), float("inf"), "2", None])
def test_weights_are_above_zero(weight: Any) -> None:
    """A replica without a share is a drained one; the message says so."""
    with pytest.raises(ValueError, match=r"above 0.*db\.drain"):
        Replica(URL, weight=weight)


POLICIES: dict[str, tuple[dict[str, Any], str]] = {
    "negative": ({"catch_up": -0.1}, "catch_up must be at least 0"),
    "zero where it cannot be": ({"probe_interval": 0}, "probe_interval must be above 0"),
    "not a number": ({"max_lag": "5s"}, "max_lag must be a number of seconds"),
    "a window below the lag": ({"max_lag": 10}, r"sticky_window \(5 s\) must be at least max_lag \(10 s\)"),
    "an unknown word": ({"without_primary": "wait"}, "without_primary must be"),
}


@pytest.mark.parametrize(("options", "says"), POLICIES.values(), ids=POLICIES)
def test_policies_are_checked(options: dict[str, Any], says: str) -> None:
    """A Policy that cannot hold its promise cannot be made."""
    with pytest.raises(ValueError, match=says):
        Policy(**options)


READING: dict[str, dict[str, Any]] = {
    "max_staleness": {"max_staleness": 1.0},
    "primary": {"primary": True},
    "snapshot": {"snapshot": True},
}


@pytest.mark.parametrize("options", READING.values(), ids=READING)
async def test_a_write_session_takes_no_reading_options(options: dict[str, Any]) -> None:
    """They would be ignored, so they are refused; open or not."""
    with pytest.raises(ValueError, match=r"are for db\.read"):
        Router(URL).write(**options)


@pytest.mark.parametrize("bound", [-1, float("nan")])
async def test_a_negative_staleness_is_refused(bound: float) -> None:
    """There is no such thing."""
    with pytest.raises(ValueError, match="max_staleness must be at least 0"):
        Router(URL).read(max_staleness=bound)


def test_a_constructor_error_shows_no_password() -> None:
    """Neither what is refused nor what is printed repeats the URL."""
    secret = "postgresql+asyncpg://user:c4n4ry@localhost/x"
    with pytest.raises(ValueError, match="not a single URL") as refused:
        Router(secret, secret)
    assert "c4n4ry" not in f"{refused.value} {refused.value!r} {Router(secret, [secret])!r}"
