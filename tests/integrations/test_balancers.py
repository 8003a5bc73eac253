"""The load balancers' configurations that are shown, run: no request fails while processes are replaced."""

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from lagwise.testing import Cluster, wait_until
from tests.kit.balancing import GRACE, Both, HAProxy, Instance, Nginx, instances
from tests.kit.load import loaded

# Requests that are under way while each process is replaced in turn; half of them write.
REQUESTS = int(os.environ.get("LAGWISE_TEST_BALANCED", "400"))
CLIENTS = 8
# Seconds that a client pauses, so that processes can start beside them all.
PAUSE = 0.05 if REQUESTS <= 400 else 0.01
ALL = {"app_reads/app-1", "app_reads/app-2", "app_writes/app-1", "app_writes/app-2"}


@pytest.fixture(scope="module")
async def both(running: Cluster, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Both]:
    """Two processes of the example, and the first one's way to its primary; their table goes with them."""
    async with instances(running, tmp_path_factory.mktemp("applications")) as found:
        yield found
    await running.primary.execute("DROP TABLE IF EXISTS items")


@asynccontextmanager
async def under_load(url: str, requests: int, **headers: str) -> AsyncIterator[list[Any]]:
    """Clients that write an item and read it back, again and again; the list fills with statuses and errors."""
    async with AsyncExitStack() as stack:
        clients = [httpx.AsyncClient(base_url=url, timeout=30, verify=False, headers=headers) for _ in range(CLIENTS)]
        idle = [await stack.enter_async_context(each) for each in clients]
        outcomes: list[Any] = []

        async def pair() -> None:
            client = idle.pop()
            try:
                made = await client.post("/items", json={"text": "balanced"})
                outcomes.append(made.status_code)
                if made.status_code == 201:
                    outcomes.append((await client.get(f"/items/{made.json()['id']}")).status_code)
            except httpx.HTTPError as error:
                outcomes.append(type(error).__name__)
            finally:
                await asyncio.sleep(PAUSE)
                idle.append(client)

        async with loaded(pair, readers=CLIENTS, reads=requests // 2):
            yield outcomes


async def replaced(one: Instance, balancer: HAProxy, grace: float = GRACE) -> None:
    """End a process as an operating system does, start another one, and wait until it gets requests."""
    one.terminate()
    await one.ended()
    await one.start(grace)
    await balancer.all_up()


@pytest.mark.timeout(600)  # for many requests; the few of an ordinary run take seconds
async def test_no_request_fails_while_each_process_is_replaced(both: Both, tmp_path: Path) -> None:
    """SIGTERM to one process after the other under load: every write is a 201, and every client finds it, 200."""
    applications, _ = both
    async with HAProxy(tmp_path, [one.address for one in applications]).running() as balancer:
        async with under_load(balancer.url, REQUESTS) as outcomes:
            for one in applications:
                await replaced(one, balancer)
        counted = Counter(outcomes)
        assert set(counted) == {200, 201}, counted
        assert counted[200] == counted[201] >= REQUESTS // 2


async def test_nginx_wants_to_be_told(both: Both, tmp_path: Path) -> None:
    """It asks for no health: with the process marked `down` before SIGTERM, no request fails behind it either."""
    applications, _ = both
    async with Nginx(tmp_path, [one.address for one in applications]).running() as balancer:
        # nginx that reads its configuration anew closes idle connections of clients; browsers repeat what meets that.
        async with under_load(balancer.url, REQUESTS, Connection="close") as outcomes:
            await balancer.mark_down(applications[1].address)
            one = applications[1]
            one.terminate()
            await one.ended()
            await one.start()
            await balancer.mark_down()
        counted = Counter(outcomes)
        assert set(counted) == {200, 201}, counted
        assert counted[200] == counted[201] >= REQUESTS // 2


async def test_it_is_the_grace_that_does_it(both: Both, tmp_path: Path) -> None:
    """Without any retry of HAProxy's, no request fails with a grace, and some do when a process stops at once."""
    (_, one), _ = both
    none = {"retries 3": "retries 0", "    option redispatch\n": "", "    retry-on conn-failure empty-response\n": ""}
    async with HAProxy(tmp_path, [each.address for each in both[0]], none).running() as bare:

        async def failed() -> int:
            async with under_load(bare.url, 100) as outcomes:
                await replaced(one, bare, 0.0)
            return sum(each not in {200, 201} for each in outcomes)

        assert await failed() == 0
        for _ in range(5):  # until a request meets the moment in which the process stops
            if without := await failed():
                break
        await replaced(one, bare, GRACE)
    assert without > 0


async def test_a_process_that_loses_its_primary_gets_reads_only(both: Both, tmp_path: Path) -> None:
    """It leaves the writes' backend, and stays in the reads'; it comes back by itself."""
    applications, way = both
    async with (
        HAProxy(tmp_path, [one.address for one in applications]).running() as balancer,
        httpx.AsyncClient(base_url=balancer.url, timeout=30, verify=False) as client,
        AsyncExitStack() as stack,
    ):
        way.cut()
        stack.callback(way.heal)

        async def left() -> bool:
            return await balancer.up() == ALL - {"app_writes/app-1"}

        await wait_until(left, timeout=20, what="app-1 gets no writes")
        before = await balancer.served()
        written = Counter([(await client.post("/items", json={"text": "elsewhere"})).status_code for _ in range(20)])
        read = Counter([(await client.get("/items")).status_code for _ in range(20)])
        after = await balancer.served()
        assert (written, read) == ({201: 20}, {200: 20})
        assert {name: after[name] - before[name] for name in sorted(ALL)} == {
            "app_reads/app-1": 10, "app_reads/app-2": 10, "app_writes/app-1": 0, "app_writes/app-2": 20,
        }  # fmt: skip
        way.heal()
        await balancer.all_up()


async def test_health_is_not_for_the_public(both: Both, tmp_path: Path) -> None:
    """Through either load balancer, as shown, health is a 404 of its own, however the path is written."""
    applications, _ = both
    addresses = [one.address for one in applications]
    for kind in (HAProxy, Nginx):
        async with kind(tmp_path, addresses).running() as balancer, httpx.AsyncClient(verify=False) as client:
            paths = ("/health/ready", "/health/nodes", "/health/live", "/health", "/health/", "/%68ealth/nodes")
            answers = [await client.get(f"{balancer.url}{path}") for path in paths]
            answers.append(await client.post(f"{balancer.url}/health/drain"))
            kinds = [(answer.status_code, answer.headers["content-type"]) for answer in answers]
            assert kinds == [(404, "text/html")] * len(answers)  # the application's are JSON
            assert (await client.get(f"{balancer.url}/healthy")).headers["content-type"] == "application/json"
