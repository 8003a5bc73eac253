"""Without the ORM, and outside of requests: scripts, and the driver's own connection."""

import pytest

from lagwise.testing import Cluster
from tests.kit.patterns import address, by_replica, running


async def test_a_script_reads_what_it_has_written(lagging: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    """The block of the script commits, and the count after it has every row."""
    from examples.patterns import script

    await script.main([address(), address()])
    assert capsys.readouterr().out == "2 users added\n"


async def test_savepoints_of_the_driver(lagging: Cluster) -> None:
    """One refused row undoes no other, and all that were taken are read by their ids at once."""
    from examples.patterns import raw_asyncpg

    one, two = sorted((address(), address()))
    async with running(raw_asyncpg.app) as connect, connect() as http:
        made = await http.post("/users", json=[one, one, two])
        assert len(made.json()) == 2
        read = await http.post("/users/by-id", json=made.json())
        assert read.json() == [one, two]


async def test_fetch_and_execute(lagging: Cluster) -> None:
    """A renamed user has the new name for its client at once; a stranger is answered by a replica."""
    from examples.patterns import raw_asyncpg

    email = address()
    async with running(raw_asyncpg.app) as connect, connect() as http, connect() as another:
        await http.post("/users", json=[email])
        assert (await http.put(f"/users/{email}/name", params={"name": "Ann"})).json() is True
        assert (await http.get(f"/users/{email}")).json()["name"] == "Ann"
        await lagging.caught_up()
        assert (await another.get(f"/users/{email}")).json()["replica"] is True


async def test_copy_is_a_write(lagging: Cluster) -> None:
    """What COPY loaded its client reads at once, all of it."""
    from examples.patterns import raw_asyncpg

    emails = [address() for _ in range(50)]
    async with running(raw_asyncpg.app) as connect, connect() as http:
        assert (await http.post("/users/import", json=emails)).json() == "COPY 50"
        assert (await http.get(f"/users/{emails[-1]}")).status_code == 200


async def test_codecs_are_on_every_connection(lagging: Cluster) -> None:
    """Values go in and come out as they are, on the primary and on replicas, after any number of uses."""
    from examples.patterns import json_codecs

    body = {"a": [1, {"b": None}]}
    async with running(json_codecs.app) as connect, connect() as http, connect() as another:
        assert (await http.put("/documents/one", json=body)).status_code == 200
        assert (await http.get("/documents/one")).json() == [body, body]
        await lagging.caught_up()
        for _ in range(4):
            read = await another.get("/documents/one")
            assert (read.json(), by_replica(read)) == ([body, body], True)
