"""Whatever a client sends for a token: no 5xx, no stale read, no long wait, and no way to choose the primary."""

import asyncio
import base64
import random
import string
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from lagwise import LSN, CausalToken, Policy, Router
from lagwise._client.signature import Seal
from lagwise._decide.token import Position
from lagwise.testing import Cluster, wait_until
from tests.kit.http import SECRET, ASGIApp, Message, http, items, opened, reason_of, serving
from tests.kit.numbers import enough
from tests.kit.routers import (
    PATIENT,
    QUIET,
    both_in_rotation,
    catalog_read,
    nothing_is_asked,
    router,
    stand_still,
    steady,
    trips,
)
from tests.kit.serving import served

SEED = 20250607
HUGE = "A" * 100_000
# What a Position's window is prolonged by, seconds.
SKEW = 60


def signed(secret: str = SECRET, **fields: Any) -> str:
    """A token as the application itself signs it."""
    return Seal(secret).sealed(CausalToken.of([Position(**fields)]))


def here(db: Router, **fields: Any) -> dict[str, Any]:
    """A position of this cluster, as of now."""
    view = db.view
    assert view.primary is not None
    assert view.primary.reading is not None
    at = view.primary.reading
    now = int(time.time())
    return {"system": at.system, "timeline": at.timeline, "lsn": at.lsn, "issued_at": now, **fields}


def carriers(text: str) -> list[dict[str, str]]:
    """The token in each place it may come in."""
    return [{"lagwise-token": text}, {"cookie": f"lagwise={text}"}]


# Not ours: ignored


def forgeries(genuine: str) -> dict[str, str]:
    """Texts that no secret of the application has signed."""
    payload, _, signature = genuine.rpartition(".")
    other = base64.urlsafe_b64encode(b"\x01" + b"\xff" * 28).rstrip(b"=").decode()
    return {
        "empty": "",
        "a dot": ".",
        "no signature": payload,
        "no payload": f".{signature}",
        "payload of another": f"{other}.{signature}",
        "signed with another secret": signed("another secret", system=1, timeline=1, lsn=LSN(2**63)),
        "truncated by one": genuine[:-1],
        "truncated by half": genuine[: len(genuine) // 2],
        "signature twice": f"{genuine}.{signature}",
        "lengthened": genuine + "A",
        "100 KB": HUGE,
        "100 KB, signed by nobody": f"{HUGE}.{signature}",
        "quotes": f'"{genuine}',
        "null": "null",
        "a number": "-1",
        "an LSN": "FFFFFFFF/FFFFFFFF",
        "not base64": "%00%ff.%2e",
        "latin-1": "\xe9\xff\x80.\xfc",
    }


async def test_forged_tokens_are_ignored(cluster: Cluster) -> None:
    """Whoever invents a token is served as if there were none: by a replica, without a wait, with no new token."""
    async with opened(items(db := router(cluster, PATIENT), route_header=True)) as running:
        await both_in_rotation(db)
        async with http(running) as client:
            genuine = (await client.post("/items/forged")).headers["lagwise-token"]
        answers = {}
        for kind, text in forgeries(genuine).items():
            for headers in carriers(text):
                async with http(running) as client:
                    encoded = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
                    answer = await client.get("/items/anything", headers=encoded)
                    told = "lagwise-token" in answer.headers
                    answers[kind, *headers] = (answer.status_code, answer.json(), reason_of(answer), told)
    assert answers == dict.fromkeys(answers, (200, 0, "fresh", False))


async def test_garbage_does_not_lose_the_genuine_token(cluster: Cluster) -> None:
    """In front of it, behind it, in the other carrier: the client still reads its own write."""
    async with opened(items(db := router(cluster, PATIENT), route_header=True)) as running:
        await both_in_rotation(db)
        await stand_still(cluster)
        async with http(running) as client:
            genuine = (await client.post("/items/genuine")).headers["lagwise-token"]
        seen: Counter[tuple[int, Any]] = Counter()
        for text in forgeries(genuine).values():
            for headers in (
                [("cookie", f"lagwise={text}"), ("cookie", f"lagwise={genuine}")],
                [("cookie", f"lagwise={genuine}; lagwise={text}")],
                [("lagwise-token", text), ("cookie", f"lagwise={genuine}")],
                [("lagwise-token", genuine), ("cookie", f"lagwise={text}")],
                [("lagwise-token", f"{text},{genuine}")],
                [("lagwise-token", genuine), ("lagwise-token", text)],
            ):
                async with http(running) as client:
                    encoded = [(name.encode(), value.encode("latin-1")) for name, value in headers]
                    answer = await client.get("/items/genuine", headers=encoded)
                    seen[answer.status_code, answer.json()] += 1
    assert set(seen) == {(200, 1)}


async def test_oversized_headers_over_the_wire(cluster: Cluster) -> None:
    """100 KB for a token over a real connection: the server or the middleware turns it away, never with a 5xx."""
    db = steady(cluster)
    async with served(items(db, route_header=True)) as url, httpx.AsyncClient(base_url=url, verify=False) as client:
        await both_in_rotation(db)
        for length in (1_000, 10_000, 60_000, 100_000):
            for headers in carriers("A" * length):
                try:
                    answer = await client.get("/items/large", headers=headers)
                except httpx.RemoteProtocolError:
                    continue  # the server hung up on it
                assert answer.status_code in {200, 400, 413, 431}
        assert (await client.get("/items/large")).status_code == 200


# Thousands of them

STRINGS = enough(4_000, 10_000)


def rubbish(draw: random.Random, genuine: str) -> bytes:
    """A text that is not a token: random bytes, random base64, or a genuine one with something changed."""
    kind = draw.randrange(4)
    if kind == 0:
        return bytes(draw.choice(range(1, 256)) for _ in range(draw.randrange(1, 200)))
    if kind == 1:
        return "".join(draw.choices(string.ascii_letters + string.digits + "-_.=", k=draw.randrange(1, 200))).encode()
    if kind == 2:
        return genuine[: draw.randrange(len(genuine))].encode()
    place = draw.randrange(len(genuine) - 1)  # two bits of the last character mean nothing
    changed = draw.choice(string.printable.replace(genuine[place], ""))
    return (genuine[:place] + changed + genuine[place + 1 :]).encode()


async def ask(app: ASGIApp, path: str, headers: list[tuple[bytes, bytes]]) -> tuple[int, bytes, bytes]:
    """One GET, straight into the application, with header bytes no client library would send: status, body, route."""
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "scheme": "http",
        "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "", "headers": headers,
        "client": ("127.0.0.1", 1), "server": ("test", 80),
    }  # fmt: skip
    await app(scope, receive, send)
    body = b"".join(message.get("body", b"") for message in sent[1:])
    return sent[0]["status"], body, dict(sent[0]["headers"]).get(b"lagwise-route", b"")


async def test_thousands_of_random_strings(cluster: Cluster) -> None:
    """None is a 5xx. Beside the client's own token none costs it its write; without one none leaves the replicas."""
    draw = random.Random(SEED)
    async with opened(items(db := router(cluster, PATIENT), route_header=True)) as running:
        await both_in_rotation(db)
        await stand_still(cluster)
        async with http(running) as client:
            genuine = (await client.post("/items/ten-thousand")).headers["lagwise-token"]
        texts = [rubbish(draw, genuine) for _ in range(STRINGS)]
        tallies: dict[str, Counter[tuple[int, bytes, bytes]]] = {"own": Counter(), "none": Counter()}

        async def one(mine: list[bytes]) -> None:
            for eight in zip(*[iter(mine)] * 8, strict=True):
                headers = [(b"lagwise-token", text) for text in eight[::2]]
                headers += [(b"cookie", b"a=b; lagwise=" + text + b"; c=d") for text in eight[1::2]]
                kind = draw.choice(["own", "none"])
                if kind == "own":
                    token = genuine.encode()
                    extra = draw.choice([(b"lagwise-token", token), (b"cookie", b"lagwise=" + token)])
                    headers.insert(draw.randrange(9), extra)
                status, body, route = await ask(running, "/items/ten-thousand", headers)
                tallies[kind][status, body, route.partition(b"=")[2]] += 1

        await asyncio.gather(*(one(texts[start : start + 400]) for start in range(0, STRINGS, 400)))
    assert set(tallies["own"]) == {(200, b"1", b"none-caught-up")}
    assert set(tallies["none"]) == {(200, b"0", b"fresh")}
    assert sum(sum(tally.values()) for tally in tallies.values()) == STRINGS // 8


async def test_random_strings_over_connections(cluster: Cluster) -> None:
    """The same through a server, 10 connections, 500 strings: 400 for what is no HTTP, otherwise 200 from a replica."""
    draw = random.Random(SEED)
    db = router(cluster, PATIENT)
    async with served(items(db, route_header=True)) as url:
        await both_in_rotation(db)
        answers: Counter[bytes] = Counter()

        async def one(mine: list[bytes]) -> None:
            for text in mine:
                reading, writing = await asyncio.open_connection(*url.removeprefix("http://").split(":"))
                name = draw.choice([b"Lagwise-Token: ", b"Cookie: lagwise="])
                writing.write(
                    b"GET /items/none HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + name + text + b"\r\n\r\n"
                )
                answer = await reading.read()
                answers[answer.split(b" ", 2)[1] if answer else b"hung up"] += 1
                if answer.startswith(b"HTTP/1.1 200"):
                    assert b"reason=fresh" in answer
                writing.close()
                await writing.wait_closed()

        texts = [rubbish(draw, signed(**here(db))) for _ in range(500)]
        await asyncio.gather(*(one(texts[start : start + 50]) for start in range(0, 500, 50)))
    assert set(answers) <= {b"200", b"400"}
    assert answers[b"200"] > 200


# Ours, and yet useless: the primary until the window ends, and not after


Useless = Callable[[Router], dict[str, Any]]
USELESS: dict[str, Useless] = {
    "a future LSN": lambda db: here(db, lsn=LSN(2**63)),
    "a future LSN, just ahead": lambda db: here(db, lsn=LSN(here(db)["lsn"] + 1_000_000)),
    "a lower timeline": lambda db: here(db, timeline=0xFFFFFFFF),
    "a higher timeline": lambda db: here(db, timeline=here(db)["timeline"] + 1),
    "another cluster": lambda db: here(db, system=(here(db)["system"] ^ 0x5A5A) or 1),
    "no position at all": lambda db: here(db, timeline=0, lsn=LSN(0), in_doubt_at=int(time.time())),
    "no cluster at all": lambda db: here(db, system=0, timeline=0, lsn=LSN(0), in_doubt_at=int(time.time())),
}


def aged(fields: dict[str, Any], seconds: float) -> dict[str, Any]:
    """The same token, issued so long ago."""
    return {
        **fields,
        "issued_at": int(fields["issued_at"] - seconds),
        "in_doubt_at": max(0, int(fields.get("in_doubt_at", 0) - seconds)),
    }


@pytest.mark.parametrize("useless", USELESS.values(), ids=USELESS)
async def test_useless_positions_mean_the_primary_until_the_window_ends(cluster: Cluster, useless: Useless) -> None:
    """Signed by us and not comparable with anything here: never a wait without end, and never for good."""
    policy = Policy(catch_up=0.02, probe_timeout=5)
    db = router(cluster, policy)
    async with opened(items(db, route_header=True)) as running:
        await both_in_rotation(db)
        where = {}
        for age in (0.0, policy.sticky_window - 1, policy.sticky_window + SKEW + 2, 10 * 365 * 86400.0):
            text = signed(**aged(useless(db), age))
            for headers in carriers(text):
                async with http(running) as client, asyncio.timeout(5):
                    answer = await client.get("/items/none", headers=headers)
                assert answer.status_code == 200
                where[age, *headers] = answer.headers["lagwise-route"].partition(";")[0] != "primary"
    assert list(where.values()) == [False] * 4 + [True] * 4


async def test_a_token_of_a_lower_timeline(cluster: Cluster) -> None:
    """A position from before a failover is compared with nothing, however low its LSN is."""
    db = router(cluster, Policy(catch_up=0, probe_timeout=5))
    async with opened(items(db, route_header=True)) as running:
        await both_in_rotation(db)
        timeline = here(db)["timeline"]
        reasons = {}
        for age in (0, 100):
            text = signed(**aged(here(db, timeline=timeline - 1 or 2**31, lsn=LSN(1)), age))
            async with http(running) as client:
                reasons[age] = reason_of(await client.get("/items/none", headers={"lagwise-token": text}))
    assert reasons == {0: "other-timeline", 100: "fresh"}


async def test_a_useless_position_does_not_hide_a_useful_one(cluster: Cluster) -> None:
    """Another cluster's entry, expired, beside this cluster's own: the floor still holds."""
    db = router(cluster, PATIENT)
    async with opened(items(db, route_header=True)) as running:
        await both_in_rotation(db)
        await stand_still(cluster)
        async with http(running) as client:
            genuine = (await client.post("/items/beside")).headers["lagwise-token"]
        strange = signed(**aged(here(db, system=4711), 1000))
        async with http(running) as client:
            answer = await client.get("/items/beside", headers={"lagwise-token": f"{strange},{genuine}"})
    assert (answer.json(), reason_of(answer)) == (1, "none-caught-up")


async def test_a_genuine_token_stays_right_at_any_age(cluster: Cluster) -> None:
    """A position that replicas can reach is a floor for ever: an old client still reads its write."""
    db = router(cluster, PATIENT)
    async with opened(items(db, route_header=True)) as running:
        await both_in_rotation(db)
        await stand_still(cluster)
        async with http(running) as client:
            genuine = (await client.post("/items/aged")).headers["lagwise-token"]
        (position,) = Seal(SECRET).opened(genuine)
        old = signed(**aged(here(db, lsn=position.lsn), 10 * 365 * 86400))
        await wait_until(lambda: here(db)["lsn"] >= position.lsn, what="the monitor has seen the write")
        async with http(running) as client:
            answer = await client.get("/items/aged", headers={"lagwise-token": old})
    assert (answer.json(), reason_of(answer)) == (1, "none-caught-up")


async def test_useless_tokens_cost_no_probes_without_a_wait(cluster: Cluster) -> None:
    """With `catch_up=0` a future LSN is one decision from memory: 100 reads, and not one question about replay."""
    db = router(cluster, QUIET)
    async with serving(items(db, route_header=True)) as client:
        await both_in_rotation(db)
        await catalog_read(db)
        text = signed(**here(db, lsn=LSN(2**63)))
        for _ in range(5):
            await client.get("/items/none", headers={"lagwise-token": text})
        await nothing_is_asked(cluster)
        before = trips(cluster)
        replicas = sum(node.proxy.round_trips for node in cluster.replicas)
        for _ in range(100):
            answer = await client.get("/items/none", headers={"lagwise-token": text})
            assert reason_of(answer) == "none-caught-up"
        assert sum(node.proxy.round_trips for node in cluster.replicas) == replicas
        assert trips(cluster) - before <= 300  # BEGIN, SELECT, ROLLBACK on the primary


async def test_many_waiting_clients_share_their_probes(cluster: Cluster) -> None:
    """A hundred reads that wait for a future LSN at once ask each replica no more often than one would."""
    db = router(cluster, Policy(max_lag=600, sticky_window=600, probe_interval=300, catch_up=0.1, probe_timeout=5))
    async with opened(items(db, route_header=True)) as running:
        await both_in_rotation(db)
        text = signed(**here(db, lsn=LSN(2**63)))

        async def one() -> str:
            async with http(running) as client:
                return reason_of(await client.get("/items/none", headers={"lagwise-token": text}))

        asked = {}
        for clients in (1, 100):
            before = sum(node.proxy.round_trips for node in cluster.replicas)
            async with asyncio.timeout(10):
                assert set(await asyncio.gather(*(one() for _ in range(clients)))) == {"none-caught-up"}
            asked[clients] = sum(node.proxy.round_trips for node in cluster.replicas) - before
    # Clients arrive one after the other, so the hundred wait longer altogether than the one; not a hundred times.
    assert 0 < asked[1] <= 2 * 60
    assert asked[100] <= 10 * asked[1]
