"""The promise: a client that wrote never misses its own write, and replicas still do the reading."""

import asyncio
from collections import Counter

from sqlalchemy import select

from lagwise import Causality, Policy, Router
from lagwise.testing import Cluster
from tests.kit.application import Item, naive, routed
from tests.kit.numbers import enough
from tests.kit.routers import router
from tests.kit.serving import client, served, workers

CLIENTS, PAIRS, WORKERS = 20, enough(10, 50), enough(2, 4)


async def drive(url: str, *, think: float = 0.0, pairs: int = PAIRS, keep_alive: bool = True) -> Counter[str]:
    """Clients that each POST an item and GET it back: counts of answers, stale ones and replica reads."""
    headers = {} if keep_alive else {"Connection": "close"}
    tally: Counter[str] = Counter()

    async def one(number: int) -> None:
        async with client(url) as http:
            for turn in range(pairs):
                created = (await http.post(f"/items/{number}-{turn}", headers=headers)).raise_for_status().json()
                await asyncio.sleep(think)
                shown = await http.get(f"/items/{created['id']}", headers=headers)
                tally["pairs"] += 1
                tally["stale"] += shown.status_code == 404
                tally["failed"] += shown.status_code not in {200, 404}
                tally["replica"] += shown.status_code == 200 and shown.json()["replica"]
                tally["crossed"] += shown.status_code == 200 and shown.json()["pid"] != created["pid"]

    await asyncio.gather(*map(one, range(CLIENTS)))
    return tally


async def test_paused_replicas_never_uncover_a_missing_write(cluster: Cluster) -> None:
    """With replay paused everywhere, hundreds of POST-then-GET pairs: 0 stale; the naive split: stale throughout."""
    for replica in cluster.replicas:
        await cluster.pause_replay(replica)
    async with served(routed(router(cluster))) as url:
        tally = await drive(url)
    async with served(naive(cluster.primary.url, [replica.url for replica in cluster.replicas])) as url:
        unprotected = await drive(url, pairs=2)
    assert (tally["pairs"], tally["stale"], tally["failed"]) == (CLIENTS * PAIRS, 0, 0)
    assert unprotected["stale"] == unprotected["pairs"]


async def test_replicas_serve_the_reads_that_follow_a_write(cluster: Cluster) -> None:
    """50 ms after a write, at least 95 % of reads are a replica's, none of them stale."""
    # A second to catch up: on a busy machine it is the replica that is late, and the default gives up sooner.
    async with served(routed(router(cluster, Policy(probe_timeout=5, catch_up=1)))) as url:
        tally = await drive(url, think=0.05, pairs=PAIRS // 2)
    assert (tally["pairs"], tally["stale"], tally["failed"]) == (CLIENTS * PAIRS // 2, 0, 0)
    assert tally["replica"] >= 0.95 * tally["pairs"]


async def test_the_token_crosses_processes(cluster: Cluster) -> None:
    """Worker processes behind one port, replay paused: 0 stale."""
    for replica in cluster.replicas:
        await cluster.pause_replay(replica)
    async with workers(cluster, WORKERS) as url:
        tally = await drive(url, pairs=PAIRS // 2, keep_alive=False)
    assert (tally["pairs"], tally["stale"], tally["failed"]) == (CLIENTS * PAIRS // 2, 0, 0)
    assert tally["crossed"] > 0, "every read met the process that wrote: nothing was crossed"


async def test_a_job_continues_what_a_request_saw(cluster: Cluster, db: Router) -> None:
    """Outside HTTP the token is text in the payload; without it the same read misses the write."""
    for replica in cluster.replicas:
        await cluster.pause_replay(replica)
    with Causality() as seen:
        async with db.write.begin() as session:
            session.add(Item(name="seen by the job"))
    payload = str(seen.token)

    async def job(token: str) -> int:
        with Causality(token):
            async with db.read() as session:
                return len((await session.scalars(select(Item).where(Item.name == "seen by the job"))).all())

    assert await job(payload) == 1
    assert await job("") == 0
