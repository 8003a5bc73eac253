"""Session dependencies as the guides write them: committed before the response, and no client misses its own write."""

from collections.abc import Iterator

import pytest
from fastapi import FastAPI

from lagwise.fastapi import CausalityMiddleware
from lagwise.testing import Cluster
from tests.kit.application import naive
from tests.kit.http import serving
from tests.kit.patterns import address, by_replica, node_of, running, users_when_answered


def held(api: FastAPI) -> CausalityMiddleware:
    """The application with patience for a busy machine: its responses wait for a COMMIT, however slow that is."""
    return CausalityMiddleware(api, secret="a secret for tests", hold=30, route_header=True)


async def test_the_usual_two_engines_are_stale_here(lagging: Cluster) -> None:
    """The recipe that the patterns replace misses its own writes: this cluster tells stale from fresh."""
    app = naive(lagging.primary.url, [node.url for node in lagging.replicas])
    async with serving(app) as http:
        statuses = []
        for _ in range(6):
            made = (await http.post("/items/unseen")).json()["id"]
            statuses.append((await http.get(f"/items/{made}")).status_code)
        assert 404 in statuses


async def test_get_db_commits_before_the_response(lagging: Cluster) -> None:
    """What it adds is there for everybody when the status is sent, and for its client when it asks."""
    from examples.patterns import get_db

    email, seen = address(), list[tuple[int, int]]()
    asking = users_when_answered(lagging, email, seen)
    async with running(held(get_db.api), wrap=asking) as connect, connect() as http, connect() as another:
        made = await http.post("/users", params={"email": email})
        assert (seen, node_of(made)) == ([(201, 1)], "primary")
        for _ in range(4):
            email = address()
            made = await http.post("/users", params={"email": email})
            read = await http.get(f"/users/{made.json()}")
            assert (read.status_code, read.json()) == (200, email)
        assert by_replica(await another.get(f"/users/{made.json()}"))


async def test_get_db_rolls_back_and_raises(lagging: Cluster) -> None:
    """Neither a refused row nor one changed before an error is left, and the error reaches the client."""
    from examples.patterns import get_db

    async with running(get_db.app) as connect, connect() as http:
        email = address()
        made = (await http.post("/users", params={"email": email})).json()
        assert (await http.post("/users", params={"email": email.upper()})).status_code == 409
        await lagging.primary.execute("UPDATE users SET balance = 5 WHERE email = $1", email)
        assert (await http.delete(f"/users/{made}")).status_code == 409
        assert (await http.get(f"/users/{made}")).status_code == 200
        await lagging.primary.execute("UPDATE users SET balance = 0 WHERE email = $1", email)
        assert (await http.delete(f"/users/{made}")).status_code == 204
        assert (await http.get(f"/users/{made}")).status_code == 404
        assert (await http.post("/users", params={"email": email})).status_code == 201  # free again


async def test_an_overridden_dependency_routes_what_nobody_touched(lagging: Cluster) -> None:
    """The same endpoints, each with the session of the guide: GET reads what POST wrote, and from replicas."""
    from examples.patterns import overrides

    email, seen = address(), list[tuple[int, int]]()
    asking = users_when_answered(lagging, email, seen)
    async with running(held(overrides.api), wrap=asking) as connect, connect() as http, connect() as another:
        made = await http.post("/people", params={"email": email})
        assert (seen, node_of(made)) == ([(201, 1)], "primary")
        assert (await http.get("/people", params={"email": email})).json() == [made.json()]
        assert by_replica(await another.get("/people", params={"email": email}))
        assert (await http.post("/people", params={"email": email})).status_code == 500
        assert (await http.get("/people", params={"email": email})).json() == [made.json()]
    await overrides.engine.dispose()


async def test_read_and_write_dependencies(lagging: Cluster) -> None:
    """`get_read_db` reads what `get_write_db` wrote, a strong read sees every client's, and no read writes."""
    from examples.patterns import read_write_dependencies as example

    async with running(example.app) as connect, connect() as http, connect() as another:
        for _ in range(4):
            email = address()
            made = (await http.post("/users", params={"email": email})).json()
            assert (await http.get(f"/users/{made}")).json() == email
            assert (await another.get(f"/users/{made}/may-log-in")).json() is True
        assert by_replica(await another.get(f"/users/{made}"))
        refused = await http.get("/mistake")
        assert refused.status_code == 500
        assert await lagging.primary.fetchval("SELECT count(*) FROM users WHERE email = 'never'") == 0


@pytest.fixture
def configured(lagging: Cluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The variables that the application has in production."""
    from examples.patterns import settings

    monkeypatch.setenv("DATABASE_URL", lagging.primary.url)
    monkeypatch.setenv("READ_REPLICA_URL", lagging.replicas[0].url)
    monkeypatch.setenv("DB_POOL_SIZE", "3")
    monkeypatch.setenv("SECRET_KEY", "a secret for tests")
    settings.get_settings.cache_clear()
    yield
    settings.get_settings.cache_clear()


@pytest.mark.usefixtures("configured")
async def test_settings_make_one_router() -> None:
    """The variables of the two-engine application make the Router: a replica that reads, pools of that size."""
    from examples.patterns import settings

    assert settings.get_settings() is settings.get_settings()
    db = settings.router_from(settings.get_settings())
    assert list(db.pools) == ["primary", "replica-1"]
    app = settings.create_app()
    async with running(app, "replica-1") as connect, connect() as http:
        read = await http.get("/database")
        assert (read.json(), by_replica(read)) == ("app", True)
