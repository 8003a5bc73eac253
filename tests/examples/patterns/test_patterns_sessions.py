"""What applications do inside of sessions: layers, transactions, loading, streams."""

import pytest

from lagwise.testing import Cluster
from tests.kit.patterns import address, by_replica, running


async def test_a_service_layer_commits(lagging: Cluster) -> None:
    """What the service committed the read repository finds for this client; a stranger's reads are a replica's."""
    from examples.patterns import service_layer

    async with running(service_layer.app) as connect, connect() as http, connect() as another:
        for _ in range(3):
            email = address()
            made = await http.put(f"/users/{email}")
            assert (await http.get(f"/users/{email}")).json() == made.json()
            assert (await http.put(f"/users/{email}")).json() == made.json()
        assert by_replica(await another.get(f"/users/{email}"))


async def test_a_unit_of_work_is_one_transaction(lagging: Cluster) -> None:
    """Both repositories' rows are there after its commit, with a token; neither is without, and then there is none."""
    from examples.patterns import unit_of_work

    async with running(unit_of_work.app) as connect, connect() as http:
        email, refused = address(), address()
        nothing = await http.post("/authors", params={"email": refused, "title": ""})
        assert (nothing.status_code, "lagwise-token" in nothing.headers) == (422, False)
        assert await lagging.primary.fetchval("SELECT count(*) FROM users WHERE email = $1", refused) == 0
        made = await http.post("/authors", params={"email": email, "title": "one"})
        assert (made.status_code, "lagwise-token" in made.headers) == (201, True)
        assert (await http.get(f"/authors/{email}")).json() == ["one"]


async def test_savepoints_locks_and_snapshots(lagging: Cluster) -> None:
    """A refused item undoes no other, a refused transfer moves nothing, and the total is never seen half-way."""
    from examples.patterns import transactions

    one, two = address(), address()
    async with running(transactions.app) as connect, connect() as http:
        opened = (await http.post("/accounts/batch", params={"balance": 10}, json=[one, one.upper(), two])).json()
        assert list(opened) == [one, two]
        ids = list(opened.values())
        assert float((await http.post("/balances", json=ids)).json()["total"]) == 20
        way = {"source": ids[0], "target": ids[1]}
        assert (await http.post("/transfers", params=way | {"amount": 7})).status_code == 200
        assert (await http.post("/transfers", params=way | {"amount": 7})).status_code == 409
        seen = (await http.post("/balances", json=ids)).json()
        assert [float(seen[key]) for key in (*ids, "total")] == [3, 17, 20]


@pytest.mark.parametrize("strategy", ["selectin", "joined", "subquery", "mixed"])
async def test_parents_and_children_are_of_one_node(lagging: Cluster, strategy: str) -> None:
    """No strategy finds a parent without its children just after both were written."""
    from examples.patterns import loading

    async with running(loading.app) as connect, connect() as http, connect() as another:
        for _ in range(3):
            made = (await http.post("/threads", params={"email": address()}, json=["a", "b"])).json()
            read = await http.get(f"/threads/{made}", params={"strategy": strategy})
            assert read.json() == {"a": ["first"], "b": ["first"]}
        await lagging.caught_up()
        read = await another.get(f"/threads/{made}", params={"strategy": strategy})
        assert (read.json(), by_replica(read)) == ({"a": ["first"], "b": ["first"]}, True)


async def test_refresh_of_a_relationship(lagging: Cluster) -> None:
    """It reads where its session reads; and what was written is still loaded after its commit."""
    from examples.patterns import loading

    async with running(loading.app) as connect, connect() as http:
        made = (await http.post("/threads", params={"email": address()}, json=["a", "b"])).json()
        assert (await http.get(f"/threads/{made}/refreshed")).json() == ["a", "b"]
        assert (await http.put(f"/threads/{made}/name", params={"name": "Ann"})).json() == {"name": "Ann"}


async def test_a_stream_sees_what_its_client_wrote(lagging: Cluster) -> None:
    """Every row, across partitions, just after they were written."""
    from examples.patterns import streaming

    mark = address()
    emails = sorted(f"{number:03}-{mark}" for number in range(250))
    async with running(streaming.app) as connect, connect() as http:
        assert (await http.post("/users", json=emails)).status_code == 201
        assert (await http.get("/export", params={"name": mark})).text.split() == emails


async def test_the_session_of_a_dependency_does_not_stream(lagging: Cluster) -> None:
    """The trap is an error with the remedy, not a session that nothing closes."""
    from examples.patterns import streaming
    from tests.kit.http import http as raising

    async with running(streaming.app):
        with pytest.raises(Exception, match="session") as caught:
            await raising(streaming.app, raising=True).get("/trap")
        assert "ended" in str(caught.value) or "closed" in str(caught.value)
