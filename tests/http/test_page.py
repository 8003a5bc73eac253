"""The status page over HTTP: HTML for people, JSON for machines, both from memory, without a secret."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from datetime import datetime
from typing import Any

import httpx
import pytest
from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.exceptions import FastAPIError
from sqlalchemy import make_url, text

from lagwise import Causality, NoReplica, Policy, Router, events
from lagwise.fastapi import health_router, lifespan
from lagwise.health import Overview, ProcessDrain
from lagwise.health.overview import overview
from lagwise.health.page import document
from lagwise.health.recording import Recording
from lagwise.testing import Cluster, Proxy, wait_until
from tests.kit.contexts import outlived
from tests.kit.http import http, serving
from tests.kit.routers import QUIET, both_in_rotation, router, stand_still, steady, trips

BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
QUICK = Policy(probe_interval=0.05, probe_timeout=0.2)


def paged(db: Router) -> FastAPI:
    """An application that shows how it is."""
    app = FastAPI(lifespan=lifespan(db))
    app.include_router(health_router(db, page=True), prefix="/health")
    return app


@asynccontextmanager
async def watched(db: Router) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an application whose Router sees both replicas in rotation."""
    async with serving(paged(db)) as client:
        await both_in_rotation(db)
        yield client


async def told(client: httpx.AsyncClient, query: str = "") -> Any:
    """The status as JSON, which is what its model says."""
    answer = await client.get(f"/health/{query}")
    Overview.model_validate_json(answer.content, strict=True)
    return answer.json()


async def read(db: Router, **options: Any) -> None:
    """One read session."""
    async with db.read(**options) as session:
        await session.execute(text("SELECT 1"))


async def test_what_is_held_back_is_told(cluster: Cluster) -> None:
    """In shadow mode: what replicas would have served, and that a naive split would have missed the client's write."""
    db = router(cluster, QUIET)
    async with watched(db) as client:
        assert (await told(client))["held_back"] is None
        db.offload = 0
        await read(db)
        await stand_still(cluster)
        with Causality():
            async with db.write.begin() as session:
                await session.execute(text("INSERT INTO item (name) VALUES ('held back')"))
            await read(db)
        await wait_until(lambda: db.shadow.reads == 2, what="both are judged")
        found = await told(client)
        assert found["held_back"] == {"reads": 2, "on_replicas": 1, "would_wait": 0, "naively_stale": 1.0}
        assert (found["routes"]["by_reason"]["held-back"], found["policy"]["offload"]) == (2, 0)


async def test_a_process_that_drains_says_so(cluster: Cluster) -> None:
    """In a note: what it serves, it serves as before."""
    drain = ProcessDrain(post=True)
    db = steady(cluster)
    app = FastAPI(lifespan=lifespan(db, drain=drain))
    app.include_router(health_router(db, page=True, drain=drain), prefix="/health")
    async with serving(app) as client:
        await both_in_rotation(db)
        assert (await told(client))["notes"] == []
        drain.begin()
        found = await told(client)
        assert found["notes"] == ["This process drains: load balancers are to send it no more requests."]
        assert (found["status"], found["reads"], found["writes"]) == ("warn", True, True)


# Who gets what


@pytest.mark.parametrize("path", ["/health", "/health/"])
async def test_html_for_browsers_and_json_for_machines(cluster: Cluster, path: str) -> None:
    """One address, with a slash or without, and no redirect; which of the two a cache may hand on is said."""
    async with watched(steady(cluster)) as client:
        page, machine = await client.get(path, headers=BROWSER), await client.get(path)
        both = await client.get(path, headers=[("Accept", "text/html;q=0.1"), ("Accept", "application/json")])
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert page.text == document()[0]
    assert page.headers["content-security-policy"] == document()[1]
    assert page.headers["referrer-policy"] == "no-referrer"
    for answer in (machine, both):
        assert (answer.status_code, answer.headers["content-type"]) == (200, "application/health+json")
        assert answer.json()["status"] == "pass"
    for answer in (page, machine):
        about = [answer.headers[name] for name in ("cache-control", "vary", "x-content-type-options")]
        assert about == ["no-store", "Accept", "nosniff"]


async def test_there_is_no_page_unless_asked_for(cluster: Cluster) -> None:
    """404, and the Router has no watcher: nothing is counted in vain."""
    db = steady(cluster)
    app = FastAPI(lifespan=lifespan(db))
    app.include_router(health_router(db), prefix="/health")
    async with serving(app) as client:
        assert (await client.get("/health/", headers=BROWSER)).status_code == 404
        assert db._nodes.watchers.told is None


def test_an_empty_prefix_is_refused() -> None:
    """An application's own front page is not replaced by accident: FastAPI says so when the router is included."""
    app = FastAPI()
    with pytest.raises(FastAPIError, match="Prefix and path cannot be both empty"):
        app.include_router(health_router(Router("postgresql+asyncpg://a:b@localhost/c"), page=True))


async def test_the_schema_describes_it(cluster: Cluster) -> None:
    """OpenAPI knows it once, with its model and its query."""
    schema = paged(steady(cluster)).openapi()
    assert [path for path in schema["paths"] if path.rstrip("/") == "/health"] == ["/health"]
    assert [one["name"] for one in schema["paths"]["/health"]["get"]["parameters"]] == ["since", "of"]
    assert "Overview" in schema["components"]["schemas"]


async def test_it_can_be_kept_behind_a_login(cluster: Cluster) -> None:
    """A router of its own with a dependency: neither page nor JSON without it, while load balancers ask as ever."""
    db = router(cluster, QUIET)

    def require_admin(request: Request) -> None:
        if request.headers.get("authorization") != "Basic YWRtaW46":
            raise HTTPException(401)

    app = FastAPI(lifespan=lifespan(db))
    app.include_router(health_router(db), prefix="/health")
    app.include_router(health_router(db, page=True), prefix="/admin/database", dependencies=[Depends(require_admin)])
    async with serving(app) as client:
        for headers in (BROWSER, {}):
            for path in ("/admin/database", "/admin/database/"):
                assert (await client.get(path, headers=headers)).status_code == 401
                allowed = {**headers, "Authorization": "Basic YWRtaW46"}
                assert (await client.get(path, headers=allowed)).status_code == 200
        assert (await client.get("/health/ready")).status_code == 200


@pytest.mark.parametrize("query", ["?since=x", "?since=-2", f"?since={2**53 + 1}", f"?of={'x' * 65}"])
async def test_odd_questions_are_refused(cluster: Cluster, query: str) -> None:
    """A number that none of its answers had, and a name longer than any, are 422."""
    async with serving(paged(router(cluster, QUIET))) as client:
        assert (await client.get(f"/health/{query}")).status_code == 422


# What is on it


async def test_the_whole_picture(cluster: Cluster) -> None:
    """Who is primary, on which timeline, every node, every pool, where sessions went, and the policy in force."""
    db = steady(cluster)
    async with watched(db) as client:
        for _ in range(3):
            await read(db)
        await read(db, primary=True)
        async with db.write.begin() as session:
            await session.execute(text("INSERT INTO item (name) VALUES ('pictured')"))
        body = await told(client)
    assert list(body) == [*Overview.model_fields]
    assert [body[name] for name in ("status", "primary", "timeline", "reads", "writes")] == [
        "pass",
        "primary",
        1,
        *[True] * 2,
    ]
    assert body["summary"] == "Reads and writes are served."
    assert (body["notes"], body["events"], body["refresh"]) == ([], [], 0.5)
    standings = {name: node["standing"] for name, node in body["nodes"].items()}
    assert standings == {"primary": "primary", "replica-1": "in-rotation", "replica-2": "in-rotation"}
    assert body["routes"] == {"seconds": 60, "by_reason": {"fresh": 3, "strong": 1, "write": 1}, "refused": {}}
    assert set(body["pools"]["primary"]) == {"writing", "reading"}
    assert body["policy"] == asdict(db.policy)
    assert set(body["staleness"]["seconds"]) == set(body["nodes"])


async def test_refusals_are_counted_by_their_class(cluster: Cluster) -> None:
    """Sessions that no node may serve are shown beside those that were served."""
    db = router(cluster, Policy(max_lag=60, sticky_window=60, catch_up=0, probe_timeout=5, fall_back=False))
    async with watched(db) as client:
        await stand_still(cluster)
        with Causality():
            async with db.write.begin() as session:
                await session.execute(text("INSERT INTO item (name) VALUES ('refused on the page')"))
            with pytest.raises(NoReplica):
                await read(db)
        assert (await told(client))["routes"] == {"seconds": 60, "by_reason": {"write": 1}, "refused": {"NoReplica": 1}}


async def test_it_asks_no_database(cluster: Cluster) -> None:
    """A hundred views and a hundred polls: not one round trip, not one connection."""
    async with watched(router(cluster, QUIET)) as client:
        before = trips(cluster), sum(node.proxy.connections for node in cluster.nodes.values())
        for _ in range(100):
            assert (await client.get("/health/", headers=BROWSER)).status_code == 200
            assert (await client.get("/health/")).status_code == 200
        after = trips(cluster), sum(node.proxy.connections for node in cluster.nodes.values())
    assert after == before


async def test_no_primary(cluster: Cluster) -> None:
    """Writes are refused and reads go on: the summary, a note and an event say so, and that it is over."""
    db = router(cluster, QUICK)
    async with watched(db) as client:
        await cluster.cut("primary")
        await wait_until(lambda: db.view.primary is None, what="the primary is gone")
        body = await told(client)
        error = body["nodes"]["primary"]["error"]
        assert [body["status"], body["primary"], body["reads"], body["writes"]] == ["warn", None, True, False]
        assert body["summary"].startswith("No primary is in sight: writes are refused, reads are served by replicas")
        assert f"primary is unreachable ({error})." in body["notes"]
        assert [(one["kind"], one["node"], one["text"]) for one in body["events"]] == [
            ("changed", "primary", f"primary is unreachable ({error})")
        ]
        await cluster.heal()
        await both_in_rotation(db)
        body = await told(client)
        assert (body["status"], body["primary"], body["events"][0]["text"]) == (
            "pass",
            "primary",
            "primary is the primary",
        )
        first, last = (datetime.fromisoformat(body["events"][0][moment]) for moment in ("first", "last"))
        assert first == last <= datetime.fromisoformat(body["time"])


async def test_before_it_opens_and_after_it_closes(cluster: Cluster) -> None:
    """The page is there, and the status is a failure that says why."""
    db = steady(cluster)
    app = FastAPI()
    app.include_router(health_router(db, page=True), prefix="/health")
    async with http(app) as client:
        for _ in range(2):
            assert (await client.get("/health/", headers=BROWSER)).status_code == 200
            answer = await client.get("/health/")
            assert (answer.status_code, answer.json()["nodes"]) == (503, {})
            assert answer.json()["summary"] == "The Router is not open: nothing is served."
            async with db:
                assert (await client.get("/health/")).status_code == 200


async def test_a_monitor_that_was_ended(cluster: Cluster) -> None:
    """What is shown will not change any more: a failure, and the summary says why."""
    db = steady(cluster)
    async with serving(paged(db)) as client:
        assert db._nodes.monitor._task is not None
        db._nodes.monitor._task.cancel()
        await wait_until(lambda: db._nodes.monitor.ended, what="the end")
        answer = await client.get("/health/")
        assert (answer.status_code, answer.json()["status"]) == (503, "fail")
        assert answer.json()["summary"].startswith("The monitor has ended")


async def test_without_replicas(cluster: Cluster) -> None:
    """One node is no warning, and while it is gone nothing is served."""
    db = Router(cluster.primary.url, policy=QUICK)
    async with serving(paged(db)) as client:
        body = await told(client)
        summary = "Reads and writes are served by the primary: there is no replica."
        assert (body["status"], body["summary"]) == ("pass", summary)
        await cluster.cut("primary")
        await wait_until(lambda: db.view.primary is None, what="the primary is gone")
        answer = await client.get("/health/")
        assert (answer.status_code, answer.json()["summary"]) == (
            503,
            "No primary is in sight: writes are refused, reads are refused, too.",
        )


async def test_a_full_pool_is_a_note(cluster: Cluster) -> None:
    """Its name, and how many of how many."""
    db = router(cluster, QUIET, pool_size=1)
    async with watched(db) as client, db.write() as session:
        await session.execute(text("SELECT 1"))
        body = await told(client)
        assert body["status"] == "warn"
        assert "The writing pool of primary is full: 1 of 1 connections in use." in body["notes"]


# The past


async def test_lag_is_recorded_while_nobody_looks(cluster: Cluster) -> None:
    """A replica stands still and catches up: its staleness was sampled, and it was evicted and returned, by name."""
    db = router(cluster, Policy(max_lag=0.5, probe_interval=0.05, probe_timeout=5))
    recording = Recording(db, interval=0.02)
    async with db:
        await both_in_rotation(db)
        await cluster.pause_replay("replica-1")
        await cluster.primary.execute("INSERT INTO item (name) VALUES ('seen later')")

        def lines() -> list[tuple[str, str]]:
            return [(each.kind, each.text) for each in overview(recording).events if each.node == "replica-1"]

        await wait_until(
            lambda: ("evicted", "replica-1 left the rotation: it lags by more than max_lag") in lines(),
            what="the eviction",
        )
        await cluster.resume_replay("replica-1")
        await wait_until(lambda: ("returned", "replica-1 is back in rotation") in lines(), what="the return")
        found = overview(recording)
        values = found.staleness.seconds["replica-1"]
        assert max(value for value in values if value is not None) > 0.5
        assert len(values) == len(found.staleness.seconds["replica-2"]) <= 300
        assert {*found.staleness.seconds["primary"]} == {None}
        assert found.staleness.interval == 0.02


async def test_only_what_is_new_is_sent_to_those_who_have_the_rest(cluster: Cluster) -> None:
    """Samples after `since` of this instance; all of them for another one, which has a past of its own."""
    db = router(cluster, QUIET)
    moments = [100.0]
    recording = Recording(db, clock=lambda: moments[-1])
    async with db:
        for moment in (100.5, 101.5, 102.5, 105.5, 106.5):  # what is told is over
            moments.append(moment)
            recording._tick()
        every = overview(recording).staleness
        assert (every.last, [len(values) for values in every.seconds.values()]) == (5, [6] * 3)
        assert every.seconds["replica-1"][3:5] == [None, None]
        later = overview(recording, 2, recording.instance).staleness
        assert later.seconds == {name: values[3:] for name, values in every.seconds.items()}
        assert overview(recording, 5, recording.instance).staleness.seconds == {name: [] for name in every.seconds}
        assert overview(recording, 5, "another").staleness == every


async def test_sampling_ends_with_the_router_and_begins_again(cluster: Cluster) -> None:
    """Closing leaves no timer behind, and another opening is sampled as the first one was."""
    db = router(cluster, QUICK)
    recording = Recording(db, interval=0.02)
    for _ in range(2):
        async with db:
            known = recording.samples.last
            await wait_until(lambda: recording.samples.last > known + 2, what="samples")  # noqa: B023 - at once
        await wait_until(lambda: recording._timer is None, what="the end of the timer")
        ended = recording.samples.last
        await asyncio.sleep(0.1)
        assert recording.samples.last == ended


async def test_sampling_keeps_no_request() -> None:
    """The first event may be told in a request, whose context ends before the timer does."""
    recording = Recording(Router("sqlite+aiosqlite://"))
    assert not outlived(lambda: recording.hear(events.TokenBrought()))
    assert recording._timer is not None


# Nothing leaks

CANARY = "c4n4ry"


async def test_nothing_leaks(cluster: Cluster) -> None:
    """No URL, host, port, user, password or exception text in what machines get; the page has no data in it at all."""
    async with Proxy(cluster.primary.server.address) as cut:
        cut.cut()
        bad = make_url(cluster.primary.url).set(username=f"user-{CANARY}", password=f"password-{CANARY}")
        urls = {"denied": bad, "unknown": bad.set(host=f"host-{CANARY}.invalid")}
        db = Router(bad.set(port=cut.address.port, database=f"database-{CANARY}"), urls, policy=QUICK)
        async with serving(paged(db)) as client:
            await wait_until(lambda: all(node.error for node in db.view.nodes), what="every node has failed")
            for each in (events.NodeUnreachable, events.NodeRefusesConnections):
                db._nodes.watchers.tell(each(node="denied", error=f"role user-{CANARY} at 127.0.0.1 failed"))
            answer, page = await client.get("/health/"), await client.get("/health/", headers=BROWSER)
        assert answer.json()["events"][0]["text"].startswith("denied refuses new connections")
        said = json.dumps(answer.json()) + str(answer.headers) + page.text + str(page.headers)
        ports = [str(cut.address.port), str(cluster.primary.proxy.address.port), ":5432"]
        assert [word for word in (CANARY, "127.0.0.1", "postgresql", "role user", *ports) if word in said] == []
