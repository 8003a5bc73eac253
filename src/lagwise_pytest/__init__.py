"""pytest's plugin of lagwise: a real cluster as a fixture. It imports lagwise only when a fixture is used.

Beside `lagwise`, not in it: pytest imports plugins at every start, also where no test needs a database.
"""

from __future__ import annotations

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


@_fixture("function")
async def lagwise_db(lagwise_cluster: Cluster) -> AsyncIterator[Router]:
    """An open Router on that cluster, every replica in rotation; faults are undone afterwards."""
    from lagwise import Router  # noqa: PLC0415
    from lagwise.testing import wait_until  # noqa: PLC0415

    replicas = lagwise_cluster.replicas
    async with Router(lagwise_cluster.primary.url, {node.name: node.url for node in replicas}) as db:
        await wait_until(lambda: len(db.view.rotation) == len(replicas), what="every replica in rotation")
        yield db
    await lagwise_cluster.restore()
