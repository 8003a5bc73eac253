"""The load balancers' configurations that are shown, run: no request fails while processes are replaced."""

import asyncio
import os
import re
import subprocess
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.routing import Route

from lagwise import Router
from lagwise.fastapi import health_router
from lagwise.testing import Cluster, wait_until
from tests.kit.balancing import EXAMPLES, GRACE, Both, HAProxy, Instance, Nginx, instances, program
from tests.kit.load import loaded

# Requests that are under way while each process is replaced in turn; half of them write.
REQUESTS = int(os.environ.get("LAGWISE_TEST_BALANCED", "400"))
CLIENTS = 8
# Seconds that a client pauses, so that processes can start beside them all.
PAUSE = 0.05 if REQUESTS <= 400 else 0.01
HAPROXY = EXAMPLES / "haproxy" / "haproxy.cfg"
NGINX = EXAMPLES / "nginx" / "nginx.conf"
KUBERNETES = EXAMPLES / "kubernetes" / "app.yaml"
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
    """Through either load balancer, as shown, health is a 404."""
    applications, _ = both
    addresses = [one.address for one in applications]
    for kind in (HAProxy, Nginx):
        async with kind(tmp_path, addresses).running() as balancer, httpx.AsyncClient(verify=False) as client:
            answers = [await client.get(f"{balancer.url}/health{path}") for path in ("/ready", "/nodes", "/live")]
            answers.append(await client.post(f"{balancer.url}/health/drain"))
            assert [answer.status_code for answer in answers] == [404] * 4


# What is shown agrees with itself, and with the application


def paths_of(text: str) -> set[str]:
    """The paths of health that a configuration asks."""
    code = "\n".join(line.partition("#")[0] for line in text.splitlines())
    return {found.partition("?")[0] for found in re.findall(r"/health/[a-z]+(?:\?for=\w+)?", code)}


@pytest.mark.parametrize("file", [HAPROXY, NGINX, KUBERNETES], ids=lambda file: file.name)
def test_every_path_exists(file: Path) -> None:
    """What is asked of the application is what it answers."""
    router = health_router(Router("postgresql+asyncpg://app@127.0.0.1/shop"))
    there = {f"/health{route.path}" for route in router.routes if isinstance(route, Route)}
    assert paths_of(file.read_text()) <= there
    assert file == NGINX or paths_of(file.read_text())


@pytest.mark.parametrize(("name", "arguments"), [("haproxy", ["-c", "-f", HAPROXY]), ("nginx", ["-t", "-c", NGINX])])
def test_the_programs_accept_it(name: str, arguments: list[Any], tmp_path: Path) -> None:
    """`haproxy -c`, `nginx -t`: no error, and no warning."""
    extra = ["-e", str(tmp_path / "error.log"), "-p", str(tmp_path)] if name == "nginx" else []
    checked = subprocess.run(
        [program(name), *extra, *map(str, arguments)], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    said = checked.stdout + checked.stderr
    unprivileged = "must be root" in said or '"user" directive' in said
    assert checked.returncode == 0, said
    assert unprivileged or "warn" not in said.lower(), said


def seconds(text: str, pattern: str) -> float:
    """The one number that a pattern finds, as seconds."""
    found = set(re.findall(pattern, text))
    assert len(found) == 1, found
    return float(found.pop())


def test_haproxy_notices_within_the_grace() -> None:
    """`fall` times `inter` and one `timeout check` are below the DRAIN_GRACE that is shown; idle times agree."""
    text = HAPROXY.read_text()
    grace = seconds(text, r"DRAIN_GRACE=(\d+)")
    check = seconds(text, r"timeout check (\d+)s")
    assert seconds(text, r"fall (\d+) rise") * seconds(text, r"check inter (\d+)s") + check < grace
    assert seconds(text, r"--timeout-keep-alive (\d+)") > 5


def test_kubernetes_waits_for_the_grace() -> None:
    """The pod has longer than its grace to end, and notices within it; the probes ask what is said of them."""
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed: uv sync --group integrations")
    deployment, service, budget = yaml.safe_load_all(KUBERNETES.read_text())
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    environment = {each["name"]: each.get("value") for each in container["env"]}
    grace, ready = float(environment["DRAIN_GRACE"]), container["readinessProbe"]
    assert ready["periodSeconds"] * ready["failureThreshold"] + ready["timeoutSeconds"] < grace
    assert pod["terminationGracePeriodSeconds"] >= grace + 30
    assert set(environment) >= {"LAGWISE_PRIMARY", "LAGWISE_REPLICAS", "LAGWISE_SECRET"}
    probes = {name: container[f"{name}Probe"]["httpGet"] for name in ("startup", "liveness", "readiness")}
    assert {name: probe["path"] for name, probe in probes.items()} == {
        "startup": "/health/live", "liveness": "/health/live", "readiness": "/health/ready?for=reads",
    }  # fmt: skip
    assert {probe["port"] for probe in probes.values()} == {port["name"] for port in container["ports"]}
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert [service["spec"]["selector"], budget["spec"]["selector"]["matchLabels"]] == [labels, labels]
    assert budget["spec"]["minAvailable"] < deployment["spec"]["replicas"]


def test_nginx_repeats_no_write() -> None:
    """`non_idempotent` is in no directive; uvicorn keeps idle connections for longer than nginx."""
    text = NGINX.read_text()
    code = "\n".join(line.partition("#")[0] for line in text.splitlines())
    assert "non_idempotent" not in code
    assert seconds(text, r"--timeout-keep-alive (\d+)") > seconds(code, r"keepalive_timeout (\d+)s")
