"""Health for load balancers: right in every state, from memory, and with nothing in it that should stay inside."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import URL, make_url, text
from sqlalchemy.exc import TimeoutError as PoolTimeout

from lagwise import NoPrimary, Policy, Router
from lagwise.fastapi import health_router, lifespan
from lagwise.testing import Cluster, Proxy, wait_until
from tests.kit.http import http, opened, serving
from tests.kit.logs import event_of
from tests.kit.routers import QUIET, both_in_rotation, router, stand_still, steady, trips

PATHS = ["/live", "/ready", "/ready?for=reads", "/ready?for=writes", "/nodes", "/pools"]
QUICK = Policy(probe_interval=0.05, probe_timeout=0.2)
SELECT = text("SELECT 1")


def healthy(db: Router) -> FastAPI:
    """An application that only tells how it is."""
    app = FastAPI(lifespan=lifespan(db))
    app.include_router(health_router(db), prefix="/health")
    return app


async def codes(client: httpx.AsyncClient) -> dict[str, int]:
    """The status code of every path."""
    return {path: (await client.get(f"/health{path}")).status_code for path in PATHS}


async def told(client: httpx.AsyncClient, path: str) -> Any:
    """The body of a path."""
    return (await client.get(f"/health{path}")).json()


ALL_WELL = dict.fromkeys(PATHS, 200)
NOT_READY = {**ALL_WELL, "/ready": 503, "/ready?for=reads": 503, "/ready?for=writes": 503, "/nodes": 503}
NO_WRITES = {**ALL_WELL, "/ready?for=writes": 503}


@asynccontextmanager
async def watched(db: Router) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an application whose Router sees both replicas in rotation."""
    async with serving(healthy(db)) as client:
        await both_in_rotation(db)
        yield client


# What it looks like


async def test_every_path_of_a_healthy_application(cluster: Cluster) -> None:
    """200, `application/health+json`, not to be kept by anyone, and status pass."""
    async with watched(steady(cluster)) as client:
        for path in PATHS:
            answer = await client.get(f"/health{path}")
            about = [answer.status_code, answer.headers["content-type"], answer.headers["cache-control"]]
            assert about == [200, "application/health+json", "no-store"]
            assert answer.json()["status"] == "pass"
            assert (await client.head(f"/health{path}")).status_code == 200


async def test_ready_uses_the_names_of_the_draft(cluster: Cluster) -> None:
    """draft-inadarei-api-health-check: status, checks by `component:measurement`, each a list of observations."""
    async with watched(steady(cluster)) as client:
        body = await told(client, "/ready")
    assert list(body) == ["status", "checks", "notes"]
    assert list(body["checks"]) == ["primary:standing", "replica-1:standing", "replica-2:standing"]
    for key, (check,) in body["checks"].items():
        name = key.partition(":")[0]
        time = datetime.fromisoformat(check.pop("time"))
        assert abs((datetime.now(UTC) - time).total_seconds()) < 60
        assert check == {
            "componentId": name,
            "componentType": "datastore",
            "observedValue": "primary" if name == "primary" else "in-rotation",
            "status": "pass",
        }


async def test_nodes_says_where_everyone_stands(cluster: Cluster) -> None:
    """Role, timeline, LSN, staleness in seconds, lag in bytes, in rotation or why not."""
    async with watched(steady(cluster)) as client:
        body = await told(client, "/nodes")
    assert list(body["nodes"]) == ["primary", "replica-1", "replica-2"]
    for name, node in body["nodes"].items():
        age, staleness = node.pop("reading_age"), node.pop("staleness")
        assert 0 <= age < 60
        assert 0 <= staleness < 60
        assert node.pop("lsn").count("/") == 1
        assert node.pop("lag_bytes") >= 0
        primary = name == "primary"
        assert node == {
            "status": "pass",
            "standing": "primary" if primary else "in-rotation",
            "in_rotation": not primary,
            "role": "primary" if primary else "replica",
            "timeline": 1,
            "weight": 1.0,
            "drained": False,
            "error": None,
        }


async def test_who_holds_connections_longest_is_shown(cluster: Cluster) -> None:
    """Two sessions hold connections: for how long each, in seconds, the longest first; none when they are over."""
    db = steady(cluster)
    async with serving(healthy(db)) as client:
        async with db.write() as first, db.write() as second:
            await first.execute(text("SELECT 1"))
            await second.execute(text("SELECT 1"))
            longest = (await client.get("/health/pools")).json()["pools"]["primary"]["writing"]["longest_held"]
            assert len(longest) == 2
            assert longest == sorted(longest, reverse=True)
            assert 0 <= longest[-1] <= longest[0] < 60
        assert (await client.get("/health/pools")).json()["pools"]["primary"]["writing"]["longest_held"] == []


async def test_a_monitor_that_was_ended_is_a_failure(cluster: Cluster) -> None:
    """What is known of the nodes will not change any more: 503 for reads and writes, and the note says why."""
    db = steady(cluster)
    async with serving(healthy(db)) as client:
        assert (await client.get("/health/ready")).status_code == 200
        assert db._nodes.monitor._task is not None
        db._nodes.monitor._task.cancel()
        await wait_until(lambda: db._nodes.monitor.ended, what="the end")
        for purpose in ("", "?for=reads", "?for=writes"):
            answer = await client.get(f"/health/ready{purpose}")
            assert (answer.status_code, answer.json()["status"]) == (503, "fail")
            assert "monitor has ended" in answer.json()["notes"][0]


async def test_an_unknown_purpose_is_refused(cluster: Cluster) -> None:
    """`?for=` takes reads and writes: a typing error in a probe must not look like health."""
    async with serving(healthy(steady(cluster))) as client:
        assert (await client.get("/health/ready?for=everything")).status_code == 422


async def test_the_schema_describes_it(cluster: Cluster) -> None:
    """OpenAPI knows the models and both status codes."""
    app = healthy(steady(cluster))
    ready = app.openapi()["paths"]["/health/ready"]["get"]
    assert ready["tags"] == ["health"]
    assert {"200", "503"} <= set(ready["responses"])
    assert [parameter["name"] for parameter in ready["parameters"]] == ["for"]


# From memory


async def test_health_asks_no_database(cluster: Cluster) -> None:
    """A hundred questions on every path: not one round trip, not one connection."""
    async with watched(router(cluster, QUIET)) as client:
        before = trips(cluster), sum(node.proxy.connections for node in cluster.nodes.values())
        for _ in range(100):
            assert await codes(client) == ALL_WELL
        after = trips(cluster), sum(node.proxy.connections for node in cluster.nodes.values())
    assert after == before


async def test_health_answers_while_the_pools_are_exhausted(cluster: Cluster) -> None:
    """With every connection taken and requests timing out, health answers as ever, and /pools says what is wrong."""
    db = router(cluster, QUIET, pool_size=1, max_overflow=0, pool_timeout=0.01)
    async with watched(db) as client, db.write() as writing, AsyncExitStack() as stack:
        await writing.execute(SELECT)
        for name in ("replica-1", "replica-2"):
            other = "replica-2" if name == "replica-1" else "replica-1"
            db.drain(other)
            reading = await stack.enter_async_context(db.read())
            await reading.execute(SELECT)
            db.undrain(other)

        async def late() -> None:
            async with db.write() as session:
                await session.execute(SELECT)

        with pytest.raises(PoolTimeout):  # of a task of its own: one that holds a connection is given another
            await asyncio.create_task(late())
        before = trips(cluster)
        assert await codes(client) == ALL_WELL
        assert (await told(client, "/pools"))["status"] == "warn"
        assert trips(cluster) == before


# Every state


async def test_a_lagging_replica_is_a_warning(cluster: Cluster) -> None:
    """It is out of rotation, says so, and everything is still 200; it comes back by itself."""
    db = router(cluster, Policy(max_lag=0.3, probe_interval=0.05))
    async with watched(db) as client:
        await cluster.pause_replay("replica-1")
        await cluster.primary.execute("INSERT INTO item (name) VALUES ('lag')")

        async def lagging() -> bool:
            node = (await told(client, "/nodes"))["nodes"]["replica-1"]
            return bool(node["standing"] == "lagging" and node["lag_bytes"])

        await wait_until(lagging, what="replica-1 lags")
        assert await codes(client) == ALL_WELL
        ready, node = await told(client, "/ready"), (await told(client, "/nodes"))["nodes"]["replica-1"]
        assert (ready["status"], ready["checks"]["replica-1:standing"][0]["observedValue"]) == ("warn", "lagging")
        assert [node["status"], node["in_rotation"], node["role"], node["error"]] == ["warn", False, "replica", None]
        assert node["staleness"] > 0.3
        assert node["lag_bytes"] > 0
        await cluster.resume_replay("replica-1")
        await both_in_rotation(db)
        assert (await told(client, "/ready"))["status"] == "pass"


async def test_every_replica_lagging_is_a_warning(cluster: Cluster) -> None:
    """The primary serves in their place: reads and writes stay 200."""
    db = router(cluster, Policy(max_lag=0.2, probe_interval=0.05))
    async with watched(db) as client:
        await stand_still(cluster)
        await cluster.primary.execute("INSERT INTO item (name) VALUES ('lag')")

        async def lagging() -> bool:
            nodes = (await told(client, "/nodes"))["nodes"]
            return all(node["standing"] == "lagging" for name, node in nodes.items() if name != "primary")

        await wait_until(lagging, what="both replicas lag")
        assert await codes(client) == ALL_WELL
        assert (await told(client, "/ready"))["status"] == "warn"


async def test_every_replica_lagging_fails_reads_where_the_policy_keeps_them_off_the_primary(cluster: Cluster) -> None:
    """`fall_back=False`: nobody may serve reads, so /ready is 503 for reads, while writes go on."""
    db = router(cluster, Policy(max_lag=0.2, probe_interval=0.05, fall_back=False))
    async with watched(db) as client:
        await stand_still(cluster)
        await cluster.primary.execute("INSERT INTO item (name) VALUES ('lag')")

        async def failing() -> bool:
            return (await codes(client))["/ready?for=reads"] == 503

        await wait_until(failing, what="nobody may serve reads")
        assert (await codes(client))["/ready?for=writes"] == 200


async def test_a_dead_replica_is_a_warning(cluster: Cluster) -> None:
    """Unreachable, by error class; nothing is known of it any more; 200 all the same."""
    db = router(cluster, QUICK)
    async with watched(db) as client:
        await cluster.cut("replica-2")
        await wait_until(lambda: db.view.node("replica-2").error, what="replica-2 is gone")
        assert await codes(client) == ALL_WELL
        assert (await told(client, "/ready"))["status"] == "warn"
        node = (await told(client, "/nodes"))["nodes"]["replica-2"]
        unknown = ("role", "timeline", "lsn", "staleness", "lag_bytes", "reading_age")
        assert {node[field] for field in unknown} == {None}
        assert [node["standing"], node["status"]] == ["unreachable", "warn"]
        assert node["error"].isidentifier()


async def test_no_primary_fails_writes_alone(cluster: Cluster) -> None:
    """/ready?for=writes is 503; reads, and /ready, stay 200 with a warning."""
    db = router(cluster, QUICK)
    async with watched(db) as client:
        await cluster.cut("primary")
        await wait_until(lambda: db.view.primary is None, what="the primary is gone")
        assert await codes(client) == NO_WRITES
        assert (await told(client, "/ready?for=writes"))["status"] == "fail"
        assert (await told(client, "/ready?for=reads"))["status"] == "warn"
        await cluster.heal()
        await wait_until(lambda: db.view.primary is not None, what="the primary is back")
        await both_in_rotation(db)
        assert await codes(client) == ALL_WELL


async def test_no_primary_fails_reads_where_the_policy_refuses_them(cluster: Cluster) -> None:
    """`without_primary="refuse"`: once staleness can no longer be bounded, /ready is 503 for reads too."""
    db = router(cluster, Policy(probe_interval=0.05, probe_timeout=0.2, max_lag=0.3, without_primary="refuse"))
    async with watched(db) as client:
        await cluster.cut("primary")

        async def failing() -> bool:
            return (await codes(client))["/ready?for=reads"] == 503

        await wait_until(failing, what="reads are refused")
        with pytest.raises(NoPrimary):
            async with db.read():
                pass


async def test_every_database_down(cluster: Cluster) -> None:
    """Nothing answers, in either way of not answering: /live and /pools are 200, everything else 503."""
    db = router(cluster, QUICK)
    async with watched(db) as client:
        for verb in (cluster.cut, cluster.black_hole):
            for name in cluster.nodes:
                await verb(name)
            await wait_until(lambda: all(node.reading is None for node in db.view.nodes), what="all nodes are gone")
            assert await codes(client) == NOT_READY
            assert (await told(client, "/ready"))["status"] == "fail"
            await cluster.heal()
            await both_in_rotation(db)
            assert await codes(client) == ALL_WELL


async def test_a_router_without_replicas(cluster: Cluster) -> None:
    """One node: ready for both, or for neither."""
    db = Router(cluster.primary.url, policy=QUICK)
    async with serving(healthy(db)) as client:
        assert await codes(client) == ALL_WELL
        assert list((await told(client, "/nodes"))["nodes"]) == ["primary"]
        await cluster.cut("primary")
        await wait_until(lambda: db.view.primary is None, what="the primary is gone")
        assert await codes(client) == NOT_READY


async def test_a_drained_replica(cluster: Cluster) -> None:
    """Out of rotation on purpose is no warning; it is told by name until it is let back."""
    db = steady(cluster)
    async with watched(db) as client:
        db.drain("replica-1")
        assert await codes(client) == ALL_WELL
        node = (await told(client, "/nodes"))["nodes"]["replica-1"]
        assert [node["standing"], node["drained"], node["in_rotation"]] == ["drained", True, False]
        assert (await told(client, "/ready"))["status"] == "pass"
        db.undrain("replica-1")
        node = (await told(client, "/nodes"))["nodes"]["replica-1"]
        assert [node["standing"], node["drained"], node["in_rotation"]] == ["in-rotation", False, True]


async def test_before_the_router_is_open(cluster: Cluster) -> None:
    """The process lives; it is not ready, and has neither nodes nor pools to tell of."""
    db = steady(cluster)
    app = FastAPI()
    app.include_router(health_router(db), prefix="/health")
    closed = {**NOT_READY, "/pools": 503}
    async with http(app) as client:
        assert await codes(client) == closed
        async with db:
            assert (await codes(client))["/live"] == 200
            assert (await codes(client))["/ready?for=writes"] == 200
        assert await codes(client) == closed
        assert (await told(client, "/ready"))["notes"] == ["the Router is not open"]


async def test_unreachable_nodes_at_start(cluster: Cluster) -> None:
    """The application starts, says it is not ready, and recovers by itself within two probe intervals."""
    interval = 1.0
    db = router(cluster, Policy(probe_interval=interval))
    for name in cluster.nodes:
        await cluster.cut(name)
    async with serving(healthy(db)) as client:
        assert await codes(client) == NOT_READY
        await cluster.heal()

        async def ready() -> bool:
            return await codes(client) == ALL_WELL

        await wait_until(ready, timeout=2 * interval, what="ready")
        await both_in_rotation(db)


async def test_silent_nodes_at_start(cluster: Cluster) -> None:
    """Nodes that accept connections and say nothing hold the start back for two probe time-outs and no longer."""
    db = router(cluster, Policy(probe_interval=0.05, probe_timeout=0.1))
    for name in cluster.nodes:
        await cluster.black_hole(name)
    async with asyncio.timeout(5), serving(healthy(db)) as client:
        assert await codes(client) == NOT_READY
        await cluster.heal()
        await both_in_rotation(db)
        assert await codes(client) == ALL_WELL


# Nothing leaks

CANARY = "c4n4ry"


async def test_nothing_leaks(cluster: Cluster, caplog: pytest.LogCaptureFixture) -> None:
    """No URL, host, port, user, password or exception text in any body, log record, or error a caller may show."""
    caplog.set_level(logging.WARNING)
    caplog.set_level(logging.DEBUG, logger="lagwise")
    async with Proxy(cluster.primary.server.address) as cut:
        cut.cut()
        bad = make_url(cluster.primary.url).set(username=f"user-{CANARY}", password=f"password-{CANARY}")
        urls: dict[str, URL] = {
            "refused": bad.set(port=cut.address.port),
            "denied": bad,
            "unknown": bad.set(host=f"host-{CANARY}.invalid"),
        }
        db = Router(bad.set(port=cut.address.port, database=f"database-{CANARY}"), urls, policy=QUICK)
        said: list[str] = []
        async with serving(healthy(db)) as client:
            await wait_until(lambda: all(node.error for node in db.view.nodes), what="every node has failed")
            for path in PATHS:
                answer = await client.get(f"/health{path}")
                said += [answer.text, str(answer.headers)]
            for maker in (db.read, db.write):
                with pytest.raises(NoPrimary) as refused:
                    async with maker():
                        pass
                said.append(f"{refused.value!r} {refused.value}")
            errors = {name: node["error"] for name, node in (await told(client, "/nodes"))["nodes"].items()}
            said += [repr(db.view), str(db.view)]
    told_once: list[str] = []  # the log has the server's own words, which may name a user or a database
    for record in caplog.records:
        words = json.dumps({**vars(record), "message": record.getMessage()}, default=repr)
        (told_once if event_of(record) == "node-unreachable" else said).append(words)
    secrets = [f"password-{CANARY}", f"host-{CANARY}", "127.0.0.1", str(cut.address.port)]
    assert [text for text in told_once if any(secret in text for secret in secrets)] == []
    assert all(error.isidentifier() for error in errors.values())
    forbidden = [CANARY, "127.0.0.1", str(cut.address.port), str(cluster.primary.proxy.address.port), "failed", "5432"]
    assert {word: [text for text in said if word in text] for word in forbidden} == {word: [] for word in forbidden}
    assert len(said) > 10


async def test_a_node_that_goes_is_logged_by_name_and_class(cluster: Cluster, caplog: pytest.LogCaptureFixture) -> None:
    """One record per change of standing: who, where it stands now, and the class of the error."""
    db = router(cluster, QUICK)
    async with watched(db):
        caplog.clear()
        caplog.set_level(logging.INFO, logger="lagwise")
        await cluster.cut("replica-1")
        await wait_until(lambda: db.view.node("replica-1").error, what="replica-1 is gone")
        (record,) = [record for record in caplog.records if event_of(record) == "node-changed"]
        told = vars(record)
        assert [event_of(record), told["node"], told["standing"]] == ["node-changed", "replica-1", "unreachable"]
        assert str(told["error"]).isidentifier()


# Pools


async def test_pool_numbers_move_as_they_should(cluster: Cluster) -> None:
    """Size, in, out, overflow, capacity, utilisation, waits, timeouts, opened: through a pool's whole day."""
    db = Router(cluster.primary.url, policy=QUIET, pool_size=2, max_overflow=1, pool_timeout=0.3)
    async with serving(healthy(db)) as client:

        async def numbers() -> dict[str, Any]:
            writing: dict[str, Any] = (await told(client, "/pools"))["pools"]["primary"]["writing"]
            return writing

        async with db.write() as first:  # a pool that nobody has used yet is not told of
            await first.execute(SELECT)
        seen = {"at rest": await numbers()}
        sessions = [db.write() for _ in range(4)]
        await sessions[0].execute(SELECT)
        seen["one out"] = await numbers()
        await sessions[1].execute(SELECT)
        await sessions[2].execute(SELECT)
        seen["all out"] = await numbers()
        assert (await told(client, "/pools"))["status"] == "warn"
        with pytest.raises(PoolTimeout):
            await sessions[3].execute(SELECT)
        seen["one too many"] = await numbers()
        waiting = asyncio.create_task(sessions[3].execute(SELECT))
        await wait_until(lambda: db.pools["primary"].tallies["writing"].waits == 2, what="a session waits")
        await sessions[0].close()
        await waiting
        seen["waited"] = await numbers()
        for session in sessions:
            await session.close()
        seen["at rest again"] = await numbers()
    columns = ("checked_in", "checked_out", "overflow", "utilisation", "waits", "timeouts", "opened")
    before = seen["at rest"]["opened"]
    for row in seen.values():
        row["opened"] -= before
    assert {when: tuple(row[column] for column in columns) for when, row in seen.items()} == {
        "at rest": (1, 0, 0, 0.0, 0, 0, 0),
        "one out": (0, 1, 0, 0.3333, 0, 0, 0),
        "all out": (0, 3, 1, 1.0, 0, 0, 2),
        "one too many": (0, 3, 1, 1.0, 1, 1, 2),
        "waited": (0, 3, 1, 1.0, 2, 1, 2),
        "at rest again": (2, 0, 0, 0.0, 2, 1, 2),
    }
    assert {(row["size"], row["capacity"]) for row in seen.values()} == {(2, 3)}


async def test_pools_of_every_node_by_role(cluster: Cluster) -> None:
    """The primary's pool for writing, each replica's for reading; a pool without a limit has no utilisation."""
    db = router(cluster, QUIET)
    async with watched(db) as client:
        async with db.write() as writing, db.read() as reading:
            await writing.execute(SELECT)
            await reading.execute(SELECT)
            await reading.connection()  # from here on it keeps one
            body = await told(client, "/pools")
        out = {
            f"{name} {role}": pool["checked_out"]
            for name, roles in body["pools"].items()
            for role, pool in roles.items()
            if pool["checked_out"]
        }
        assert out in ({"primary writing": 1, "replica-1 reading": 1}, {"primary writing": 1, "replica-2 reading": 1})
    async with opened(healthy(unlimited := router(cluster, QUIET, max_overflow=-1))) as app, http(app) as client:
        async with unlimited.write() as writing:
            await writing.execute(SELECT)
            pool = (await told(client, "/pools"))["pools"]["primary"]["writing"]
        assert [pool["checked_out"], pool["capacity"], pool["utilisation"]] == [1, None, None]
