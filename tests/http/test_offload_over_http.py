"""Which clients of an application are let in: by principal, by cookie, by Authorization."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from fastapi import FastAPI, Response

from lagwise import Policy, Router
from lagwise._client.store import name_of
from lagwise._decide.offload import bucket_of, held_back
from lagwise.fastapi import ReadSession
from lagwise.store import MemoryStore
from lagwise.testing import Cluster
from tests.kit.http import (
    ASGIApp,
    application,
    carries_nothing,
    cookies_set,
    http,
    names,
    opened,
    reason_of,
    with_items,
)
from tests.kit.principals import Device, aged, processes
from tests.kit.routers import both_in_rotation, router

HALF = Policy(offload=0.5, probe_timeout=5)


@asynccontextmanager
async def two(cluster: Cluster, policy: Policy = HALF, **options: Any) -> AsyncIterator[list[tuple[Router, ASGIApp]]]:
    """Two processes of one application."""
    async with AsyncExitStack() as stack:
        found = []
        for _ in range(2):
            db = router(cluster, policy)
            app = application(db, route_header=True, **options)
            with_items(app)
            with_public(app)
            found.append((db, await stack.enter_async_context(opened(app))))
            await both_in_rotation(db)
        yield found


def with_public(app: FastAPI) -> None:
    """A path whose answer a shared cache may keep."""

    @app.get("/public")
    async def public(response: Response, session: ReadSession) -> int:
        response.headers["cache-control"] = "public, max-age=60"
        return await names(session, "public")


async def test_a_browser_stays_where_it_is(cluster: Cluster) -> None:
    """The first answer sets a bucket, and no later one; every request, in any process, goes the same way."""
    async with two(cluster) as ((_, one), (_, other)):
        reasons = set()
        for _ in range(12):
            async with http(one) as browser, http(other) as elsewhere:
                first = await browser.get("/items/browser")
                assert cookies_set(first) == ["lagwise-offload"]
                assert first.headers["cache-control"] == "private"
                elsewhere.cookies = browser.cookies
                later = [await each.get("/items/browser") for each in (browser, elsewhere, browser, elsewhere)]
                assert {reason_of(answer) for answer in later} == {reason_of(first)}
                assert all(carries_nothing(answer) for answer in later)
                reasons.add(reason_of(first))
        assert reasons == {"fresh", "held-back"}  # but for one in two thousand


@pytest.mark.parametrize("share", [0, 1])
async def test_no_bucket_is_set_where_none_is_needed(cluster: Cluster, share: float) -> None:
    """All clients, or none: the answer to a GET stays as the application made it, for any cache to keep."""
    async with two(cluster, Policy(offload=share, probe_timeout=5)) as ((_, app), _), http(app) as browser:
        assert carries_nothing(await browser.get("/items/any"))
        assert cookies_set(await browser.post("/items/any"))[0] == "lagwise"


async def test_an_answer_for_every_cache_sets_no_bucket(cluster: Cluster) -> None:
    """The application says public: the client gets its bucket with another answer."""
    async with two(cluster) as ((_, app), _), http(app) as browser:
        answer = await browser.get("/public")
        assert (cookies_set(answer), answer.headers["cache-control"]) == ([], "public, max-age=60")
        assert cookies_set(await browser.get("/items/any")) == ["lagwise-offload"]


async def test_a_write_does_not_ask(cluster: Cluster) -> None:
    """What only writes needs no bucket; where the client reads as well, both cookies are set by one answer."""
    async with two(cluster, secure=True, path="/") as ((_, app), _), http(app) as browser:
        assert "lagwise-offload" not in cookies_set(await browser.post("/items/asks not"))
        answer = await browser.get("/items/asks not")
        cookie = answer.headers["set-cookie"]
        assert cookie.partition("; Max-Age=7776000; ")[2] == "HttpOnly; Path=/; SameSite=Lax; Secure"


async def test_a_program_without_cookies_is_known_by_its_authorization(cluster: Cluster) -> None:
    """Each key goes one way in both processes, the way that its hash says."""
    async with two(cluster) as ((_, one), (_, other)):
        for number in range(12):
            key = f"Bearer {number}"
            expected = "held-back" if held_back(bucket_of(key), 0.5) else "fresh"
            for app in (one, other, one):
                assert reason_of(await Device(app, key).get("/items/program")) == expected


async def test_a_principal_goes_one_way_from_all_of_its_clients(cluster: Cluster) -> None:
    """In every process, whatever cookie the client has; the share of principals let in is that of their hashes."""
    routers = [router(cluster, HALF), router(cluster, HALF)]
    async with processes(routers, lambda: aged(MemoryStore())) as apps:
        for db in routers:
            await both_in_rotation(db)
        for number in range(12):
            user = f"user:{number}"
            expected = "held-back" if held_back(bucket_of(name_of(user)), 0.5) else "fresh"
            for app in apps:
                for cookie in ("lagwise-offload=000000", "lagwise-offload=999999"):
                    async with http(app) as client:
                        answer = await client.get("/items/p", headers={"authorization": user, "cookie": cookie})
                    assert reason_of(answer) == expected
                    assert cookies_set(answer) == []


async def test_a_share_that_rises_moves_no_client_back(cluster: Cluster) -> None:
    """Who was let in stays in, until the share falls again."""
    async with two(cluster) as ((db, app), _), AsyncExitStack() as stack:
        browsers = [await stack.enter_async_context(http(app)) for _ in range(10)]
        before: set[int] = set()
        for share in (0.2, 0.5, 0.8, 1):
            db.offload = share
            reasons = [reason_of(await each.get("/items/rises")) for each in browsers]
            let_in = {number for number, reason in enumerate(reasons) if reason == "fresh"}
            assert before <= let_in
            before = let_in
        assert len(before) == len(browsers)


async def test_a_planted_cookie_breaks_no_promise(cluster: Cluster) -> None:
    """Whatever a client puts there, it reads its own write, and gets a bucket that is one."""
    async with two(cluster) as ((_, app), _):
        for replica in cluster.replicas:
            await cluster.pause_replay(replica)
        for number, value in enumerate(("000000", "999999", "1000000", "", "'; DROP TABLE item", "0" * 8000)):
            async with http(app) as client:
                path = f"/items/planted {number}"
                written = await client.post(path)
                cookie = f"lagwise={written.cookies['lagwise']}; lagwise-offload={value}"
                client.cookies.clear()
                answer = await client.get(path, headers={"cookie": cookie})
                assert (answer.status_code, answer.json()) == (200, 1)
                assert (cookies_set(answer) == []) == (value in {"000000", "999999"})
