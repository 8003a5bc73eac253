"""Engines that an application has made itself keep all that they had, on every node and for reads and writes alike."""

from pathlib import Path

import pytest

from lagwise.testing import Cluster
from tests.kit.patterns import address, by_replica, node_of, running


async def test_engines_made_in_lifespan_keep_their_options(lagging: Cluster) -> None:
    """Both kinds of session, on the primary and on replicas, have the engine's server settings."""
    from examples.patterns import engines_in_lifespan as example

    async with running(example.app) as connect, connect() as http:
        reads = [await http.get("/settings") for _ in range(4)]
        assert {answer.json() for answer in reads} == {"shop off"}
        assert all(by_replica(answer) for answer in reads)
        written = await http.post("/settings")
        assert (written.json(), node_of(written)) == ("shop off", "primary")


async def test_module_level_engines_without_a_pool(lagging: Cluster) -> None:
    """Under NullPool each client reads what it wrote, reads are on replicas, and no connection stays open."""
    from examples.patterns import engines_at_module_level as example

    async with running(example.app) as connect, connect() as http, connect() as another:
        for _ in range(3):
            email = address()
            made = await http.post("/users", params={"email": email})
            assert (await http.get(f"/users/{made.json()}")).json() == email
        assert by_replica(await another.get(f"/users/{made.json()}"))


async def test_credentials_that_change(lagging: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a rotation every new connection logs in with the new token: for writes, for reads, and to watch."""
    monkeypatch.setenv("TOKEN_FILE", str(token := tmp_path / "token"))
    token.write_text("first")
    await lagging.primary.execute("CREATE ROLE rotating LOGIN PASSWORD 'first' IN ROLE shop, pg_monitor")
    await lagging.caught_up()
    from examples.patterns import changing_credentials as example

    async with running(example.app, "replica-1") as connect, connect() as http, connect() as another:
        for secret in ("second", "third"):
            email = address()
            made = await http.post("/users", params={"email": email})
            assert (await http.get(f"/users/{made.json()}")).json() == email
            assert by_replica(await another.get(f"/users/{made.json()}"))
            await lagging.primary.execute(f"ALTER ROLE rotating PASSWORD '{secret}'")
            token.write_text(secret)
            await lagging.caught_up()
            for node in ("primary", "replica-1"):
                await lagging.terminate_backends(node)
    await example.primary.dispose()
    await example.replica.dispose()
