"""The examples, as a user would start them."""

import importlib
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from lagwise.testing import Cluster
from tests.kit.routers import both_in_rotation
from tests.kit.serving import client, served

SECRET = "a secret for tests"


def environment(cluster: Cluster) -> dict[str, str]:
    """What the examples are told of their nodes: by the names these were born with."""
    primary, *replicas = cluster.nodes.values()
    return {
        "LAGWISE_PRIMARY": primary.url,
        "LAGWISE_REPLICAS": ",".join(node.url for node in replicas),
        "LAGWISE_SECRET": SECRET,
    }


def loaded(name: str, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module of this name, imported anew, for these nodes."""
    for variable, value in environment(cluster).items():
        monkeypatch.setenv(variable, value)
    monkeypatch.delitem(sys.modules, name, raising=False)
    return importlib.import_module(name)


@asynccontextmanager
async def browsers(module: Any) -> AsyncIterator[tuple[httpx.AsyncClient, httpx.AsyncClient]]:
    """The module's `app` behind uvicorn, and two clients of it."""
    async with served(module.app) as url, client(url) as one, client(url) as another:
        await both_in_rotation(module.db)
        yield one, another
