"""What a package must not break: a client finds its own writes at any lag, and reads are a replica's."""

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import httpx
from fastapi import FastAPI

from lagwise import Router
from lagwise.fastapi import CausalityMiddleware
from lagwise.testing import Cluster
from tests.kit.http import SECRET, committed, http, opened
from tests.kit.routers import both_in_rotation, stand_still

Ask = Callable[[httpx.AsyncClient, str], Awaitable[httpx.Response]]

PAIRS = 5
STILL = 50


class Kept(NamedTuple):
    """Own writes that a client missed at once; why a later read of its own went where it went, and a stranger's."""

    missed: int
    later: str
    stranger: str


# A read is a replica's, and says so: of a client that wrote, and of one that did not.
KEPT = Kept(missed=0, later="caught-up", stranger="fresh")


async def _post(client: httpx.AsyncClient, name: str) -> httpx.Response:
    return await client.post(f"/items/{name}")


async def _get(client: httpx.AsyncClient, name: str) -> httpx.Response:
    return await client.get(f"/items/{name}")


def how_many(answer: httpx.Response) -> int:
    """The number that the answer is."""
    return int(answer.json())


def reasons(answer: httpx.Response) -> str:
    """Why the sessions of a request went where they went, each reason once."""
    return " ".join(sorted({each.partition("reason=")[2] for each in answer.headers["lagwise-route"].split(", ")}))


async def kept(
    cluster: Cluster,
    client: httpx.AsyncClient,
    stranger: httpx.AsyncClient,
    kind: str,
    write: Ask = _post,
    read: Ask = _get,
    count: Callable[[httpx.Response], int] = how_many,
) -> Kept:
    """Write and read back as one client, then read when replicas have caught up, then read as another client.

    Every response must have the header `Lagwise-Route`. `count` is how many of the name an answer shows.
    """
    missed = 0
    for number in range(PAIRS):
        made = await write(client, f"{kind} {number}")
        assert made.status_code < 400, made.text
        answer = await read(client, f"{kind} {number}")
        assert answer.status_code < 500, answer.text
        missed += count(answer) != 1
    await cluster.caught_up()
    for _ in range(20):  # the Router has to hear of it: each read asks it to, and waits a moment at most
        later = await read(client, f"{kind} 0")
        assert count(later) == 1
        if reasons(later) == KEPT.later:
            break
    return Kept(missed, reasons(later), reasons(await read(stranger, f"{kind} 0")))


async def kept_by(app: FastAPI, cluster: Cluster, db: Router, kind: str, **asks: Any) -> Kept:
    """The same of an application in this process, the middleware outermost."""
    wrapped = CausalityMiddleware(app, secret=SECRET, route_header=True)
    async with (
        opened(app, lambda _: wrapped) as running,
        http(running, raising=True) as client,
        http(running, raising=True) as stranger,
    ):
        await both_in_rotation(db)
        return await kept(cluster, client, stranger, kind, **asks)


async def acknowledged_before_commit(
    app: FastAPI, cluster: Cluster, db: Router, kind: str, refusing: str
) -> tuple[int, int, int]:
    """How many own writes were missed with replay paused; the status, and the rows, of a COMMIT that fails."""
    wrapped = CausalityMiddleware(app, secret=SECRET, hold=2)
    async with opened(app, lambda _: wrapped) as running, http(running) as client:
        await both_in_rotation(db)
        await stand_still(cluster)
        missed = 0
        for number in range(STILL):
            client.cookies.clear()
            assert (await client.post(f"/items/{kind}, still {number}")).status_code == 200
            missed += (await client.get(f"/items/{kind}, still {number}")).json() != 1
        failed = await client.post(f"/items/{refusing}")
    return missed, failed.status_code, await committed(cluster, refusing)
