"""A cluster for the examples, and a way to load one as its user would: from its file, by its environment."""

import importlib.util
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TypeAlias

import pytest
from fastapi import FastAPI

from lagwise.testing import Cluster

EXAMPLES = Path(__file__).parents[2] / "examples"
Load: TypeAlias = Callable[..., FastAPI]


@pytest.fixture(scope="package")
async def cluster() -> AsyncIterator[Cluster]:
    async with Cluster(replicas=2) as cluster:
        yield cluster


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Load:
    """`load("app", primary, *replicas)`: the application of that file, for these nodes."""

    def load(name: str, primary: str, *replicas: str) -> FastAPI:
        monkeypatch.setenv("LAGWISE_PRIMARY", primary)
        monkeypatch.setenv("LAGWISE_REPLICAS", ",".join(replicas))
        monkeypatch.setenv("LAGWISE_SECRET", "a secret for tests")
        spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, spec.name, module)
        spec.loader.exec_module(module)
        app = module.app
        assert isinstance(app, FastAPI)
        return app

    return load
