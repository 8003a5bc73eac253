"""Every server that runs several workers: the example application, unchanged, behind two processes."""

from pathlib import Path

import httpx
import pytest

from lagwise.testing import Cluster, wait_until
from tests.kit.serving import client

from .promise import KEPT, kept
from .servers import SERVERS, TABLE, installed, started

# Longer than eight writes take while other tests keep the machine busy.
GRACE = {"DRAIN_GRACE": "8"}


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
    log, app = tmp_path / "log", "tests.integrations.telling:app"
    async with (
        started(server, cluster, log, app=app, workers=workers, more=GRACE) as (url, process),
        client(url) as http,
    ):
        http.headers["Connection"] = "close"  # each request may meet another worker
        statuses: dict[str, int] = {}

        async def all_say(status: int) -> bool:
            answer = await http.get("/health/ready")
            statuses[answer.headers["process"]] = answer.status_code
            return list(statuses.values()) == [status] * max(workers, 1)

        # A worker that answers hears the signal; one that starts may still have the handler of its server alone.
        await wait_until(lambda: all_say(200), timeout=60, what="every worker is ready")
        process.terminate()
        await wait_until(lambda: all_say(503), what="no worker is ready")
        served = [(await http.post("/items", json={"text": "in the grace"})).status_code for _ in range(8)]
        assert (served, process.returncode) == ([201] * 8, None)
        await wait_until(lambda: process.returncode is not None, timeout=20, what="the server ends")
    assert "Traceback" not in log.read_text(), log.read_text()
