"""docs/migrate.md: each of its diffs, applied to the application it is for, is all that the move takes."""

import importlib.util
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest
import sqlalchemy
from fastapi import FastAPI
from sqlalchemy.ext.asyncio import AsyncEngine

from lagwise.fastapi import CausalityMiddleware
from lagwise.testing import Cluster
from tests.kit.http import http, opened

from .pages import ROOT

PAGE = (ROOT / "docs" / "migrate.md").read_text()
APPLICATIONS = Path(__file__).parent / "applications"
MOVES = dict(re.findall(r"applications/(\w+)\.py\)\.\n\n```diff\n(.*?)```", PAGE, re.S))
ONE_LINE, OUT = re.findall(r"```diff\n(.*?)```", PAGE.partition("\n## And back\n")[2], re.S)

SQLALCHEMY_2_0 = sqlalchemy.__version__.startswith("2.0.")


def applied(diff: str, text: str) -> str:
    """The text after a diff, of which each part stands in the text once."""
    for part in diff.split("@@\n"):
        lines = part.splitlines(keepends=True)
        before = "".join(line[1:] for line in lines if line[0] in "- ")
        assert text.count(before) == 1, before
        text = text.replace(before, "".join(line[1:] for line in lines if line[0] in "+ "))
    return text


def original(name: str) -> str:
    """The application before its move."""
    return (APPLICATIONS / f"{name}.py").read_text()


class Started:
    """Runs the text of an application against a cluster, one replica of which stands still for the test."""

    def __init__(self, where: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._where, self._monkeypatch = where, monkeypatch
        self._made = 0

    @asynccontextmanager
    async def __call__(self, text: str) -> AsyncIterator[httpx.AsyncClient]:
        """A client of it."""
        self._made += 1
        module = self._module(f"moved_{self._made}", text)
        app: Any = module.app
        inner = app.app if isinstance(app, CausalityMiddleware) else app
        assert isinstance(inner, FastAPI)
        async with opened(inner, lambda _: app) as running, http(running) as client:
            yield client
        for engine in (one for one in vars(module).values() if isinstance(one, AsyncEngine)):
            await engine.dispose()

    def _module(self, name: str, text: str) -> ModuleType:
        (path := self._where / f"{name}.py").write_text(text)
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        self._monkeypatch.setitem(sys.modules, name, module)
        spec.loader.exec_module(module)
        return module


@pytest.fixture
def started(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Started:
    """Runs applications on this cluster."""
    monkeypatch.setenv("DATABASE_URL", cluster.primary.url)
    monkeypatch.setenv("READ_REPLICA_URL", cluster.replicas[0].url)
    monkeypatch.setenv("SECRET_KEY", "a secret for tests")
    return Started(tmp_path, monkeypatch)


async def missed(client: httpx.AsyncClient, cluster: Cluster, name: str) -> tuple[bool, bool]:
    """Whether a stranger's read is a replica's, and whether the client misses what it has just written."""
    await cluster.caught_up()
    by_replica = (await client.get(f"/items/{name}")).json()["replica"]
    await cluster.pause_replay("replica-1")
    try:
        assert (await client.post(f"/items/{name}")).status_code == 200
        return by_replica, (await client.get(f"/items/{name}")).json()["items"] == 0
    finally:
        await cluster.resume_replay("replica-1")


def test_every_move_is_shown() -> None:
    """One diff for each application, and each diff is under twenty lines."""
    assert set(MOVES) == {path.stem for path in APPLICATIONS.glob("[!_]*.py")}
    assert [diff for diff in (*MOVES.values(), ONE_LINE, OUT) if len(diff.splitlines()) >= 20] == []


@pytest.mark.parametrize("name", MOVES)
async def test_an_application_misses_no_write_after_its_move(cluster: Cluster, started: Started, name: str) -> None:
    """Before, a client of two engines misses its own write; afterwards none does, and strangers read from replicas."""
    if name == "advanced_alchemy":
        pytest.importorskip(
            "advanced_alchemy", reason="advanced-alchemy is not installed: uv sync --group integrations"
        )
    two = name != "one_engine"
    if name != "advanced_alchemy" or SQLALCHEMY_2_0:  # its own routing raises AttributeError on 2.1
        async with started(original(name)) as client:
            assert await missed(client, cluster, f"before {name}") == (two, two)
    async with started(applied(MOVES[name], original(name))) as client:
        assert await missed(client, cluster, f"after {name}") == (True, False)


async def test_the_way_back(cluster: Cluster, started: Started) -> None:
    """One line takes the replicas out; without lagwise every endpoint works as it is, and nothing is stale."""
    moved = applied(MOVES["one_engine"], original("one_engine"))
    async with started(applied(ONE_LINE, moved)) as client:
        assert await missed(client, cluster, "no replicas") == (False, False)
    async with started(applied(OUT, moved)) as client:
        assert await missed(client, cluster, "back") == (False, False)
    assert "lagwise" not in applied(OUT, moved)
