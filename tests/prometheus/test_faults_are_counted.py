"""What is counted is what clients saw: 64 at once, while one replica stands still and another one is killed."""

import asyncio
from collections import Counter

import httpx
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from lagwise import CausalToken
from lagwise._client.signature import Seal
from lagwise._decide.lsn import LSN
from lagwise._decide.token import Position
from lagwise.fastapi import ReadSession, WriteSession
from lagwise.testing import Cluster
from tests.kit.http import application, http, opened
from tests.kit.metrics import registered, scrape
from tests.kit.numbers import enough
from tests.kit.routers import QUICK, in_rotation, router

CLIENTS, TURNS = 64, enough(6, 60)
FORGED = Seal("another application's").sealed(
    CausalToken.of([Position(system=7, timeline=1, lsn=LSN(64), issued_at=1)])
)
ROUTE = ("node", "reason", "role")
IN_PLACE = {"none-caught-up", "all-lagging", "none-in-rotation", "other-timeline"}


def shop(app: FastAPI) -> None:
    """One path to write and one to read; whatever goes wrong is answered inside the middleware."""

    @app.post("/items")
    async def create(session: WriteSession) -> None:
        await session.execute(text("INSERT INTO item (name) VALUES ('counted under faults')"))

    @app.get("/items")
    async def count(session: ReadSession) -> int:
        return await session.scalar(text("SELECT count(*) FROM item")) or 0

    @app.exception_handler(SQLAlchemyError)
    async def failed(_: Request, error: SQLAlchemyError) -> JSONResponse:
        return JSONResponse(type(error).__name__, 503)


class Seen:
    """What the clients saw, in numbers."""

    def __init__(self) -> None:
        self.routes = Counter[tuple[str, str, str]]()
        self.refused = Counter[tuple[str, str]]()
        self.moved = self.fell_back = self.brought = self.given = self.forged = self.commits = 0

    def answered(self, answer: httpx.Response, sent: httpx.Headers) -> None:
        """Note one answer: the nodes that its session was sent to, one after the other, and what became of it."""
        role = "read" if answer.request.method == "GET" else "write"
        routes = [each.split("; reason=") for each in answer.headers.get("lagwise-route", "").split(", ") if each]
        for node, reason in routes:
            self.routes[node, reason, role] += 1
            self.fell_back += role == "read" and reason in IN_PLACE and node == "primary"
        if answer.status_code == 503:
            self.refused[answer.json(), role] += 1
        # What was tried and failed: each try but the one that answered, or was refused.
        self.moved += len(routes) - (answer.status_code == 200)
        self.brought += "lagwise=" in sent.get("cookie", "")
        self.forged += sent.get("lagwise-token") == FORGED
        self.given += "lagwise-token" in answer.headers
        self.commits += role == "write" and answer.status_code == 200


async def test_the_counts_are_what_the_clients_saw(cluster: Cluster) -> None:
    """Routes by node and reason, retries, fall-backs, refusals, tokens and commits: each sum is that of the answers."""
    db = router(cluster, QUICK)
    registry, seen = registered(db), Seen()
    app = application(db, route_header=True)
    shop(app)
    async with opened(app) as running:
        await in_rotation(db, "replica-1", "replica-2")
        before = scrape(registry)

        async def visit(number: int) -> None:
            async with http(running) as client:
                for turn in range(TURNS):
                    headers = {"X-Forwarded-For": f"10.0.0.{number}"}  # else they would look like one client
                    if (number + turn) % 16 == 0:
                        headers["Lagwise-Token"] = FORGED
                    request = client.build_request("POST" if turn % 3 == 0 else "GET", "/items", headers=headers)
                    seen.answered(await client.send(request), request.headers)
                    if turn == 1:
                        half_way.release()

        half_way = asyncio.Semaphore(0)
        clients = [asyncio.create_task(visit(number)) for number in range(CLIENTS)]
        await half_way.acquire()
        await cluster.pause_replay("replica-1")
        await cluster.kill("replica-2")
        await asyncio.gather(*clients)
        now = scrape(registry)
    assert before.total("lagwise_routes_total") == 0
    counted = Counter({key: int(value) for key, value in now.by("lagwise_routes_total", *ROUTE).items()})
    assert seen.routes - counted == Counter()
    # The header names a route once; a read that the same node gets again, for the same reason, is counted again.
    again = counted - seen.routes
    assert now.total("lagwise_retries_total") == seen.moved + again.total()
    assert now.by("lagwise_refusals_total", "error", "role") == seen.refused
    fell_again = sum(times for (node, reason, _), times in again.items() if node == "primary" and reason in IN_PLACE)
    assert now.total("lagwise_fall_backs_total") == seen.fell_back + fell_again > 0
    assert now.value("lagwise_tokens_brought_total") == seen.brought > 0
    assert now.value("lagwise_tokens_issued_total") == seen.given >= CLIENTS
    assert now.by("lagwise_tokens_ignored_total", "why") == {"not-signed": seen.forged}
    assert now.total("lagwise_positions_total") == seen.commits == CLIENTS * -(-TURNS // 3)
    assert now.total("lagwise_waits_total") == now.value("lagwise_wait_seconds_count")
    assert {key[0] for key in now.by("lagwise_evictions_total", "node", "standing")} == {"replica-2"}
