"""A service calls another: each reads what the other has written."""

import asyncio
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from contextvars import copy_context
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Response
from fastapi.responses import RedirectResponse, StreamingResponse

from lagwise import LSN, Causality, CausalToken
from lagwise._client.doubts import doubt
from lagwise._client.signature import Seal
from lagwise._decide.token import Position
from lagwise.asgi import CausalityMiddleware
from lagwise.fastapi import ReadSession, WriteSession, lifespan
from lagwise.httpx import propagate
from lagwise.testing import Cluster
from tests.kit.http import SECRET, ASGIApp, http, insert, names, opened, with_items
from tests.kit.routers import both_in_rotation, patient
from tests.kit.serving import client as browser
from tests.kit.serving import served

SEAL = Seal(SECRET)
DELAY = 0.5  # seconds by which each replica applies late


def seen_at(lsn: int) -> CausalToken:
    """What a client has seen of one cluster."""
    return CausalToken.of([Position(system=7, timeline=1, lsn=LSN(lsn), issued_at=1_000)])


def caller(db: Any, others: httpx.AsyncClient) -> FastAPI:
    """The service that a browser talks to: it calls the other one, which works on the same database."""
    app = FastAPI(lifespan=lifespan(db))
    with_items(app)

    @app.post("/told/{name}")
    async def told(name: str, session: WriteSession) -> int:
        await insert(session, name)
        await session.commit()
        return int((await others.get(f"/items/{name}")).json())

    @app.post("/asked/{name}")
    async def asked(name: str) -> int:
        (await others.post(f"/items/{name}")).raise_for_status()
        async with db.read() as session:
            return await names(session, name)

    return app


@asynccontextmanager
async def services(cluster: Cluster, *, propagating: bool) -> AsyncIterator[str]:
    """Two services behind a real server each, on replicas that are half a second late; the URL of the first."""
    first, second = patient(cluster), patient(cluster)
    called = FastAPI(lifespan=lifespan(second))
    with_items(called)
    async with served(CausalityMiddleware(called, secret=SECRET)) as url, browser(url) as others:
        if propagating:
            assert propagate(others, secret=SECRET) is others
        async with served(CausalityMiddleware(caller(first, others), secret=SECRET)) as here:
            for db in (first, second):
                await both_in_rotation(db)
            await cluster.caught_up()
            for replica in cluster.replicas:
                await cluster.set_apply_delay(replica, DELAY)
            yield here


@pytest.mark.parametrize("propagating", [True, False], ids=["propagate", "naive"])
async def test_two_services_on_replicas_that_are_late(cluster: Cluster, propagating: bool) -> None:
    """The called one reads what the caller wrote, the caller what the called one wrote, and the browser all of it."""
    found = []
    async with services(cluster, propagating=propagating) as url, browser(url) as user:
        for number in range(3):
            one, other = (f"{kind} {propagating} {number}" for kind in ("told", "asked"))
            found.append((await user.post(f"/told/{one}")).json())
            user.cookies.clear()
            found.append((await user.post(f"/asked/{other}")).json())
            found.append((await user.get(f"/items/{other}")).json())
            user.cookies.clear()
    # Without it, on a busy machine, some reads come late enough.
    assert (found == [1] * 9) is propagating


# Which hosts


def answering(**headers: str) -> tuple[httpx.MockTransport, list[tuple[str, str | None]]]:
    """A transport that answers every host, with these headers, and the tokens that each host got."""
    got = list[tuple[str, str | None]]()

    def answer(request: httpx.Request) -> httpx.Response:
        got.append((str(request.url), request.headers.get("lagwise-token")))
        status = 307 if request.url.path.endswith("/away") else 200
        location = {"location": "http://strangers.test/"} if status == 307 else {}
        return httpx.Response(status, headers={**headers, **location})

    return httpx.MockTransport(answer), got


async def test_only_the_services_get_the_token() -> None:
    """The origin of `base_url`, and hosts that are named: no other port, scheme or host, also not by a redirect."""
    transport, got = answering()
    async with httpx.AsyncClient(
        transport=transport, base_url="http://orders.test/api", follow_redirects=True
    ) as client:
        propagate(client, secret=SECRET, hosts=["Billing.test"])
        with Causality(seen_at(5)) as seen:
            for url in ("/x", "http://billing.test:81/", "http://orders.test:81/", "https://orders.test/", "/away"):
                await client.get(url)
        await client.get("/outside")
    text = SEAL.sealed(seen.token)
    assert got == [
        ("http://orders.test/api/x", text),
        ("http://billing.test:81/", text),
        ("http://orders.test:81/", None),
        ("https://orders.test/", None),
        ("http://orders.test/api/away", text),
        ("http://strangers.test/", None),
        ("http://orders.test/api/outside", None),
    ]


async def test_what_a_stranger_answers_is_not_read() -> None:
    """Not even a token that verifies: it may have been replayed."""
    transport, _ = answering(**{"Lagwise-Token": SEAL.sealed(seen_at(9))})
    async with httpx.AsyncClient(transport=transport) as client:
        propagate(client, secret=SECRET, hosts=["orders.test"])
        with Causality() as seen:
            await client.get("http://strangers.test/")
            assert (seen.token, seen.grew) == (CausalToken(), False)
            await client.get("http://orders.test/")
            assert (seen.token, seen.grew) == (seen_at(9), True)


def test_a_client_that_knows_no_service_is_refused() -> None:
    """Nothing would be sent, and nothing would say so. Likewise without a secret."""
    with httpx.Client() as client:
        with pytest.raises(ValueError, match="base_url"):
            propagate(client, secret=SECRET)
        with pytest.raises(ValueError, match="secret"):
            propagate(client, secret="", hosts=["orders.test"])


@pytest.mark.parametrize(
    "hosts",
    [
        "billing.internal",
        ["http://billing.internal"],
        ["billing.internal:8080"],
        ["billing.internal/"],
        ["user@billing.internal"],
        ["*.internal"],
        [" billing.internal"],
        ["orders.internal", ""],
    ],
    ids=str,
)
def test_hosts_that_no_request_can_have_are_refused(hosts: Any) -> None:
    """A string, and an entry that is no name of a host: no request would get the token. The error has the remedy."""
    with httpx.Client(base_url="http://orders.test") as client:
        with pytest.raises(ValueError, match=r'hosts=\["billing.internal"\]'):
            propagate(client, secret=SECRET, hosts=hosts)
        assert client.event_hooks == {"request": [], "response": []}


@pytest.mark.parametrize(
    "host", ["billing", "BILLING_1.test", "10.0.0.1", "::1", "[::1]", "Bücher.test", "xn--bcher-kva.test"]
)
def test_a_host_has_the_name_that_its_requests_have(host: str) -> None:
    """Capitals, addresses of both kinds, and names that are not ASCII, in either spelling."""
    transport, got = answering()
    with propagate(httpx.Client(transport=transport), secret=SECRET, hosts=[host]) as client, Causality(seen_at(5)):
        client.get(httpx.URL(scheme="http", host=host))
    assert [token for _, token in got] == [SEAL.sealed(seen_at(5))]


async def test_twice_is_once_and_the_applications_hooks_stay() -> None:
    """The second call replaces the first, with its secret; other hooks and a token of the caller's own stay."""
    transport, got = answering()
    called = []

    async def own(request: httpx.Request) -> None:
        called.append(request.method)

    async with httpx.AsyncClient(transport=transport, base_url="http://a", event_hooks={"request": [own]}) as client:
        propagate(propagate(client, secret="old"), secret=SECRET)
        assert [len(client.event_hooks[moment]) for moment in ("request", "response")] == [2, 1]
        with Causality(seen_at(5)):
            await client.get("/", headers={"lagwise-token": "mine"})
    assert (called, got[0][1]) == (["GET"], f"{SEAL.sealed(seen_at(5))}, mine")


def test_a_client_that_is_not_asynchronous() -> None:
    """Sends and merges likewise: for `def` endpoints, and scripts."""
    transport, got = answering(**{"Lagwise-Token": SEAL.sealed(seen_at(9))})
    client = propagate(httpx.Client(transport=transport, base_url="http://a"), secret=SECRET)
    with client, Causality(seen_at(5)) as seen:
        client.get("/")
    assert (got[0][1], seen.token) == (SEAL.sealed(seen_at(5)), seen_at(9))


def test_calls_that_end_together_in_threads_lose_no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request asks two services at once, in threads: while one token is merged, the other waits for its turn."""
    paused, second_is_there = threading.Event(), threading.Event()

    class Noted:
        """A lock that tells when the second thread asks for it."""

        def __init__(self) -> None:
            self._lock = threading.Lock()

        def __enter__(self) -> None:
            if paused.is_set():
                second_is_there.set()
            self._lock.acquire()

        def __exit__(self, *_: object) -> None:
            self._lock.release()

    including = CausalToken.including

    def slowly(token: CausalToken, positions: Any) -> CausalToken:
        grown = including(token, positions)
        if token is nothing and not paused.is_set():  # what was seen is read, and not yet replaced
            paused.set()
            assert second_is_there.wait(30)
        return grown

    def answer(request: httpx.Request) -> httpx.Response:
        lsn = int(request.url.path.strip("/"))
        if lsn == 9:
            assert paused.wait(30)
        return httpx.Response(200, headers={"Lagwise-Token": SEAL.sealed(seen_at(lsn))})

    monkeypatch.setattr("lagwise.httpx._MERGING", Noted(), raising=False)
    client = propagate(httpx.Client(transport=httpx.MockTransport(answer), base_url="http://a"), secret=SECRET)

    def second() -> None:
        client.get("/9")
        second_is_there.set()

    with client, Causality() as seen, ThreadPoolExecutor() as threads:
        nothing = seen.token
        monkeypatch.setattr(CausalToken, "including", slowly)
        calls = [threads.submit(copy_context().run, call) for call in (lambda: client.get("/8"), second)]
        for call in calls:
            call.result(60)
        assert seen.token == seen_at(9)


def test_a_thread_sends_a_token_while_a_commit_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    """The event loop announces another COMMIT while a call in a thread asks what is in doubt."""
    with Causality() as seen:
        seen.begin(7, 5.0).announce()

        def meanwhile(system: int) -> Position:
            if len(seen._pending) == 1:
                seen.begin(8, 5.0).announce()
            return doubt(system)

        monkeypatch.setattr("lagwise._client.causality.doubt", meanwhile)
        assert [position.system for position in seen.token] == [7]
        assert [position.system for position in seen.token] == [7, 8]


# What comes back


@pytest.mark.parametrize("text", ["nonsense", Seal("another").sealed(seen_at(9)), "x" * 2000])
async def test_a_token_that_cannot_be_verified_is_a_doubt(text: str) -> None:
    """The service has written something, and nothing here can say where: the next read uses the primary."""
    transport, _ = answering(**{"Lagwise-Token": text})
    async with httpx.AsyncClient(transport=transport, base_url="http://a") as client:
        propagate(client, secret=SECRET)
        with Causality() as seen:
            await client.get("/")
    assert seen.token.position(0) is not None


async def test_several_tokens_merge_and_their_number_is_bounded() -> None:
    """The first sixteen, as the middleware reads them."""
    texts = ", ".join(SEAL.sealed(seen_at(lsn)) for lsn in range(1, 19))
    transport, _ = answering(**{"Lagwise-Token": texts})
    async with httpx.AsyncClient(transport=transport, base_url="http://a") as client:
        propagate(client, secret=SECRET)
        with Causality() as seen:
            await client.get("/")
    assert seen.token == seen_at(16)


@pytest.mark.parametrize(
    ("method", "fault", "doubted"),
    [
        ("POST", httpx.ReadTimeout("slow"), True),
        ("POST", httpx.RemoteProtocolError("cut"), True),
        ("POST", asyncio.CancelledError(), True),
        ("POST", 504, True),
        ("DELETE", 502, True),
        # Envoy's for a connection that was cut, and others' for the like; a 500 may follow a commit.
        *[("POST", status, True) for status in (408, 499, 500, 503, 520, 522, 524)],
        *[("POST", status, False) for status in (400, 404, 409, 429)],
        ("GET", 503, False),
        ("POST", httpx.ConnectError("refused"), False),
        ("GET", httpx.ReadTimeout("slow"), False),
        ("TRACE", httpx.ReadTimeout("slow"), False),
    ],
)
async def test_a_call_whose_outcome_is_unknown_is_a_doubt(method: str, fault: Any, doubted: bool) -> None:
    """It may have written: the caller, and its client, read from the primary. What was not sent wrote nothing."""

    def fail(request: httpx.Request) -> httpx.Response:
        if isinstance(fault, int):
            return httpx.Response(fault)
        raise fault

    async with httpx.AsyncClient(transport=httpx.MockTransport(fail), base_url="http://a") as client:
        propagate(client, secret=SECRET)
        with Causality() as seen:
            if isinstance(fault, int):
                await client.request(method, "/")
            else:
                with pytest.raises(type(fault)):
                    await client.request(method, "/")
            assert ((seen.token.position(0) is not None), seen.grew) == (doubted, doubted)


@pytest.mark.parametrize("kind", [httpx.AsyncClient, httpx.Client])
async def test_a_hook_that_raises_loses_no_token(kind: Any) -> None:
    """The example of a hook in httpx's manual calls raise_for_status(): what a 404 has seen is merged all the same."""
    text = SEAL.sealed(seen_at(9))
    transport = httpx.MockTransport(lambda _: httpx.Response(404, headers={"Lagwise-Token": text}))
    asynchronous = kind is httpx.AsyncClient

    def raises(response: httpx.Response) -> None:
        response.raise_for_status()

    async def raises_later(response: httpx.Response) -> None:
        response.raise_for_status()

    hooks = {"response": [raises_later if asynchronous else raises]}
    client = propagate(kind(transport=transport, base_url="http://a", event_hooks=hooks), secret=SECRET)
    with Causality() as seen, pytest.raises(httpx.HTTPStatusError):
        if asynchronous:
            await client.get("/")
        else:
            client.get("/")
    assert seen.token == seen_at(9)


async def test_redirects_and_streams(cluster: Cluster) -> None:
    """A redirect after the write carries the token on; a streamed answer's is there before its body is read."""
    db = patient(cluster)
    app = FastAPI(lifespan=lifespan(db))
    with_items(app)

    @app.post("/form/{name}")
    async def form(name: str, session: WriteSession) -> Response:
        await insert(session, name)
        return RedirectResponse(f"/items/{name}", status_code=303)

    @app.post("/stream/{name}")
    async def stream(name: str, session: WriteSession) -> Response:
        await insert(session, name)

        async def body() -> AsyncIterator[str]:
            yield "long"

        return StreamingResponse(body())

    @app.get("/read/{name}")
    async def read(name: str, session: ReadSession) -> int:
        return await names(session, name)

    async with opened(app) as running, http(_wrapped(running)) as client:
        propagate(client, secret=SECRET)
        await both_in_rotation(db)
        await cluster.caught_up()
        for replica in cluster.replicas:
            await cluster.pause_replay(replica)
        with Causality():
            assert (await client.post("/form/sent-elsewhere", follow_redirects=True)).json() == 1
        with Causality() as seen:
            async with client.stream("POST", "/stream/sent-on"):
                assert seen.token
            client.cookies.clear()
            assert (await client.get("/read/sent-on")).json() == 1


def _wrapped(app: ASGIApp) -> ASGIApp:
    return CausalityMiddleware(app, secret=SECRET)
