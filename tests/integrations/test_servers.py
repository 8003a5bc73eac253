"""Every server that runs several workers: the example application, unchanged, behind two processes."""

from pathlib import Path

import httpx
import pytest

from lagwise.testing import Cluster, wait_until
from tests.kit.serving import client

from .promise import KEPT, kept
from .servers import SERVERS, TABLE, installed, started

GRACE = {"DRAIN_GRACE": "4"}


@pytest.mark.parametrize("server", SERVERS)
async def test_a_cookie_goes_from_worker_to_worker(lagging: Cluster, tmp_path: Path, server: str) -> None:
    """A write by one worker is found by whichever reads, at once; reads are a replica's; a signal ends it."""
    installed(server)
    await lagging.primary.execute(TABLE)
    await lagging.caught_up()
    made: dict[str, str] = {}

    async def create(client: httpx.AsyncClient, name: str) -> httpx.Response:
        client.headers["Connection"] = "close"  # each request may meet another worker
        answer = await client.post("/items", json={"text": name})
        made[name] = f"/items/{answer.json()['id']}"
        return answer

    log = tmp_path / "log"
    async with started(server, lagging, log) as (url, _), client(url) as one, client(url) as another:
        found = await kept(
            lagging,
            one,
            another,
            server,
            write=create,
            read=lambda http, name: http.get(made[name]),
            count=lambda answer: answer.status_code == 200,
        )
    assert found == KEPT
    assert "Traceback" not in log.read_text(), log.read_text()


@pytest.mark.parametrize("server", SERVERS)
async def test_a_drain_is_heard_by_every_worker(cluster: Cluster, tmp_path: Path, server: str) -> None:
    """SIGTERM to the first process: no worker is ready, all serve through the grace, then the server ends by itself.

    Hypercorn tells its workers by an event of its own, and no signal: it is heard where there is one process.
    """
    installed(server)
    workers = 0 if server == "hypercorn" else 2
    await cluster.primary.execute(TABLE)
    await cluster.caught_up()
    before = await cluster.primary.fetchval("SELECT array_agg(pid) FROM pg_stat_activity")  # also of what has ended
    log = tmp_path / "log"
    async with started(server, cluster, log, workers=workers, more=GRACE) as (url, process), client(url) as http:
        http.headers["Connection"] = "close"  # each request may meet another worker

        async def all_run() -> bool:
            query = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '/* lagwise: monitor%' AND pid <> ALL($1)"
            return bool(await cluster.primary.fetchval(query, before) >= max(workers, 1))

        await wait_until(all_run, timeout=60, what="every worker watches the nodes")
        process.terminate()

        async def not_ready() -> bool:
            return {(await http.get("/health/ready")).status_code for _ in range(8)} == {503}

        await wait_until(not_ready, what="no worker is ready")
        statuses = [(await http.post("/items", json={"text": "in the grace"})).status_code for _ in range(8)]
        assert (statuses, process.returncode) == ([201] * 8, None)
        await wait_until(lambda: process.returncode is not None, timeout=20, what="the server ends")
    assert "Traceback" not in log.read_text(), log.read_text()
