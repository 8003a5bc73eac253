"""A process leaves its load balancers before its server stops: what begins that, what shows it, and how it ends."""

import asyncio
import logging
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from lagwise import Router
from lagwise.fastapi import health_router, lifespan
from lagwise.health import ProcessDrain, draining, ready
from lagwise.testing import Cluster, wait_until
from tests.kit.balancing import Instance, instances
from tests.kit.http import Socket, http, opened, serving
from tests.kit.logs import event_of
from tests.kit.routers import steady

CANARY = "c4n4ry"


def drained(db: Router, drain: ProcessDrain) -> FastAPI:
    """An application that tells how it is, and takes its time at `/slow`."""
    app = FastAPI(lifespan=lifespan(db, drain=drain))
    app.include_router(health_router(db, drain=drain), prefix="/health")
    app.add_middleware(drain.closing)
    return app


@pytest.fixture
def heard() -> Iterator[list[int]]:
    """The signals that a server's own handlers hear, which are there before the application starts."""
    signals: list[int] = []
    before = {one: signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)}
    for one in before:
        signal.signal(one, lambda number, _: signals.append(number))
    yield signals
    for one, handler in before.items():
        signal.signal(one, handler)


async def soon(predicate: Callable[[], object], what: str) -> None:
    await wait_until(predicate, timeout=5, what=what)


# What shows it


async def test_ready_fails_first(cluster: Cluster) -> None:
    """503 with the note `draining`, for reads and writes; the process lives, and tells of its nodes as before."""
    db, drain = steady(cluster), ProcessDrain(60)
    async with serving(drained(db, drain)) as client:
        assert (await client.get("/health/ready")).status_code == 200
        drain.begin()
        for purpose in ("", "?for=reads", "?for=writes"):
            answer = await client.get(f"/health/ready{purpose}")
            assert (answer.status_code, answer.json()) == (503, {"status": "fail", "checks": {}, "notes": ["draining"]})
            assert answer.headers["cache-control"] == "no-store"
        statuses = [(await client.get(f"/health/{path}")).status_code for path in ("live", "nodes", "pools")]
        assert statuses == [200, 200, 200]
        assert ready(db).status == "pass"
        assert ready(db, drain=drain).status == "fail"


async def test_answers_ask_for_the_end_of_their_connections(cluster: Cluster) -> None:
    """`Connection: close` once it drains, also in an answer to a request that came before; not in HTTP/2."""
    db, drain = steady(cluster), ProcessDrain(60)
    app = drained(db, drain)
    under_way, go = asyncio.Event(), asyncio.Event()

    @app.get("/slow")
    async def slow() -> None:
        under_way.set()
        await go.wait()

    async with serving(app) as client:
        assert "connection" not in (await client.get("/health/live")).headers
        before = asyncio.create_task(client.get("/slow"))
        await under_way.wait()
        drain.begin()
        go.set()
        assert (await before).headers["connection"] == "close"
        assert (await client.get("/health/live")).headers["connection"] == "close"

    async def second(scope: Any, receive: Any, send: Any) -> None:
        await app({**scope, "http_version": "2"}, receive, send)

    async with opened(app), http(second) as client:
        drain.begin()
        assert "connection" not in (await client.get("/health/live")).headers


async def test_websockets_pass(cluster: Cluster) -> None:
    """What is no HTTP request goes through `closing` as it came."""
    messages: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        messages.append((scope["type"], await receive()))

    drain = ProcessDrain()
    drain.begin()
    async with Socket(drain.closing(app), "/"):
        await soon(lambda: messages, "the message")
    assert messages == [("websocket", {"type": "websocket.connect"})]


# What begins it


async def test_no_post_begins_it_unless_it_is_switched_on(cluster: Cluster) -> None:
    """Without a drain, or without `post=True`, there is no such path."""
    db = steady(cluster)
    for drain in (None, ProcessDrain(60)):
        app = FastAPI(lifespan=lifespan(db, drain=drain))
        app.include_router(health_router(db, drain=drain), prefix="/health")
        async with serving(app) as client:
            assert (await client.post("/health/drain")).status_code == 404
            assert (await client.get("/health/ready")).status_code == 200


async def test_a_post_begins_it(cluster: Cluster, heard: list[int], caplog: pytest.LogCaptureFixture) -> None:
    """202, as often as it is sent; a GET is refused, and so is what a browser sends; the process does not end."""
    caplog.set_level(logging.INFO, logger="lagwise")
    drain = ProcessDrain(0, post=True)
    async with serving(drained(steady(cluster), drain)) as client:
        assert (await client.get("/health/drain")).status_code == 405
        for browser in ({"Origin": f"https://{CANARY}.example"}, {"Sec-Fetch-Site": "cross-site"}):
            assert (await client.post("/health/drain", headers=browser)).status_code == 403
        assert (await client.get("/health/ready")).status_code == 200
        for _ in range(2):
            answer = await client.post("/health/drain")
            assert (answer.status_code, answer.json()["notes"]) == (202, ["draining"])
        assert (await client.get("/health/ready")).status_code == 503
    records = [record for record in caplog.records if event_of(record) == "draining"]
    assert [vars(record)["grace"] for record in records] == [0]
    assert not [record for record in caplog.records if CANARY in str(vars(record))]
    assert heard == []


@pytest.mark.parametrize("grace", [-1, float("nan"), float("inf")])
def test_a_grace_is_a_number_of_seconds(grace: float) -> None:
    """Anything else is refused where it is written."""
    with pytest.raises(ValueError, match="grace must be a number of seconds"):
        ProcessDrain(grace)


# What ends it


async def test_sigterm_reaches_the_server_after_the_grace(heard: list[int]) -> None:
    """The server's own handler hears it then, once; when all is over it hears the next one at once."""
    drain = ProcessDrain(0.2)
    async with drain:
        signal.raise_signal(signal.SIGTERM)
        await soon(lambda: drain.begun, "draining")
        assert heard == []
        await soon(lambda: heard, "the server hears it")
        assert heard == [signal.SIGTERM]
    assert not drain.begun
    signal.raise_signal(signal.SIGTERM)
    assert heard == [signal.SIGTERM] * 2


async def test_without_a_grace_it_passes_at_once(heard: list[int]) -> None:
    """`grace=0`: in the next turn of the loop."""
    async with ProcessDrain(0):
        signal.raise_signal(signal.SIGTERM)
        await soon(lambda: heard, "the server hears it")
    assert heard == [signal.SIGTERM]


async def test_a_grace_that_has_passed_is_not_waited_for_again(
    heard: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Begun by a POST a grace ago: SIGTERM ends the process at once."""
    now = 1000.0
    monkeypatch.setattr(draining, "monotonic", lambda: now)
    drain = ProcessDrain(60)
    async with drain:
        drain.begin()
        now += 60
        signal.raise_signal(signal.SIGTERM)
        await soon(lambda: heard, "the server hears it")
    assert heard == [signal.SIGTERM]


async def test_a_second_signal_ends_the_grace_unless_it_is_the_first_once_more(
    heard: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers are signalled with their parent, which signals them again: within two seconds that is one signal."""
    now, seen = 1000.0, 0
    monkeypatch.setattr(draining, "monotonic", lambda: now)
    drain = ProcessDrain(60)
    terminate = drain._terminate

    def counted() -> None:
        nonlocal seen
        terminate()
        seen += 1

    monkeypatch.setattr(drain, "_terminate", counted)
    async with drain:
        for later, passed in ((0, []), (1.9, []), (0.2, [signal.SIGTERM])):
            now += later
            before = seen
            signal.raise_signal(signal.SIGTERM)
            await soon(lambda: seen > before, "the signal")  # noqa: B023
            assert heard == passed


async def test_a_server_whose_loop_hears_signals_hears_sigint(heard: list[int]) -> None:
    """In hypercorn and granian their handler for SIGTERM is replaced in the loop, and no call brings it back."""
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, heard.append, signal.SIGTERM)
    try:
        async with ProcessDrain(0):
            signal.raise_signal(signal.SIGTERM)
            await soon(lambda: heard, "the server hears it")
        signal.raise_signal(signal.SIGTERM)  # the application has ended, the server not yet
        await soon(lambda: len(heard) == 1, "nothing more")
    finally:
        loop.remove_signal_handler(signal.SIGTERM)
    assert heard == [signal.SIGINT]


def test_a_program_without_a_handler_ends() -> None:
    """SIGTERM does then what it does by default, after the grace."""
    code = """
import asyncio, signal
from lagwise.health import ProcessDrain
async def main():
    drain = ProcessDrain(0.1)
    async with drain:
        signal.raise_signal(signal.SIGTERM)
        await asyncio.sleep(60)
asyncio.run(main())
"""
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=30).returncode == -signal.SIGTERM


async def test_what_hears_no_signals_says_so(caplog: pytest.LogCaptureFixture) -> None:
    """In another thread than the main one, and on Windows: a warning; `begin()` works all the same."""
    drain = ProcessDrain(60)

    async def elsewhere() -> bool:
        async with drain:
            drain.begin()
            return drain.begun

    assert await asyncio.to_thread(lambda: asyncio.run(elsewhere()))
    (record,) = [record for record in caplog.records if event_of(record) == "drain-unheard"]
    assert (record.levelno, vars(record)["reason"].isidentifier()) == (logging.WARNING, True)


async def test_one_drain_serves_one_process(heard: list[int]) -> None:
    """Entered twice it is an error; entered again after its end it has not begun."""
    drain = ProcessDrain()
    async with drain:
        with pytest.raises(RuntimeError, match="in use already"):
            async with drain:
                pass
        drain.begin()
    async with drain:
        assert not drain.begun


# With a real server


async def test_uvicorn_serves_through_the_grace(cluster: Cluster, tmp_path: Path) -> None:
    """SIGTERM: not ready, still serving and saying so; then the process ends as if nothing had been in between."""
    async with one_process(cluster, tmp_path) as one, httpx.AsyncClient(verify=False) as client:
        url = f"http://{one.address}"
        assert "connection" not in (await client.get(f"{url}/items")).headers
        one.terminate()

        async def draining_now() -> bool:
            return await one.status("/health/ready") == 503

        await wait_until(draining_now, what="not ready")
        made = await client.post(f"{url}/items", json={"text": "in the grace"})
        assert (made.status_code, made.headers["connection"]) == (201, "close")
        assert await one.ended() == -signal.SIGTERM
        assert "Traceback" not in one.log.read_text()


@asynccontextmanager
async def one_process(cluster: Cluster, folder: Path) -> AsyncIterator[Instance]:
    """The example application, whose table goes with it."""
    async with instances(cluster, folder, count=1) as ((one,), _):
        yield one
    await cluster.primary.execute("DROP TABLE IF EXISTS items")
