"""pytest's plugin of lagwise: a real cluster as a fixture. It imports lagwise only when a fixture is used.

Beside `lagwise`, not in it: pytest imports plugins at every start, also where no test needs a database.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from lagwise import Router
    from lagwise.testing import Cluster


def _fixture(scope: Any) -> Callable[[Callable[..., Any]], Any]:
    """The decorator of an asynchronous fixture; without pytest-asyncio the fixture says what it lacks."""
    try:
        import pytest_asyncio  # noqa: PLC0415
    except ImportError:
        return lambda function: pytest.fixture(scope=scope, name=function.__name__)(_lacking)
    decorator: Callable[[Callable[..., Any]], Any] = pytest_asyncio.fixture(scope=scope, loop_scope="session")
    return decorator


def _lacking() -> None:
    pytest.fail("the fixtures of lagwise need pytest-asyncio: pip install pytest-asyncio", pytrace=False)


@pytest.fixture(scope="session")
def lagwise_replicas() -> int:
    """How many replicas the cluster has: override it in your conftest.py."""
    return 2


@_fixture("session")
async def lagwise_cluster(lagwise_replicas: int) -> AsyncIterator[Cluster]:
    """A primary with streaming replicas, for the whole run: create your tables in a fixture of your own."""
    from lagwise.testing import Cluster  # noqa: PLC0415

    async with Cluster(replicas=lagwise_replicas) as cluster:
        yield cluster


def _same_loop(request: pytest.FixtureRequest) -> None:
    """Fail the test where its event loop is another one than that of the fixtures: no session would open there."""
    marker = request.node.get_closest_marker("asyncio")
    if marker is None or not inspect.iscoroutinefunction(request.function):
        return
    if (marker.kwargs.get("loop_scope") or request.config.getini("asyncio_default_test_loop_scope")) != "session":
        pytest.fail(
            "lagwise_db lives in the event loop of the run, and this test has a loop of its own: set "
            'asyncio_default_test_loop_scope = "session" in the configuration of pytest, '
            'or mark the test with @pytest.mark.asyncio(loop_scope="session")',
            pytrace=False,
        )


@_fixture("function")
async def lagwise_db(request: pytest.FixtureRequest, lagwise_cluster: Cluster) -> AsyncIterator[Router]:
    """An open Router on that cluster, every replica in rotation; faults are undone afterwards."""
    _same_loop(request)
    from lagwise import Router  # noqa: PLC0415
    from lagwise.testing import wait_until  # noqa: PLC0415

    replicas = lagwise_cluster.replicas
    async with Router(lagwise_cluster.primary.url, {node.name: node.url for node in replicas}) as db:
        await wait_until(lambda: len(db.view.rotation) == len(replicas), what="every replica in rotation")
        yield db
    await lagwise_cluster.restore()
