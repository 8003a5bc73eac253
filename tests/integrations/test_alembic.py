"""Alembic with its async template: migrations run on the primary, wherever it is."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest
from sqlalchemy import make_url

pytest.importorskip("alembic", reason="alembic is not installed: uv sync --group integrations")

from lagwise.testing import Cluster, Node

from .loading import environment

INI = Path(__file__).parents[2] / "examples" / "alembic" / "alembic.ini"
MODELS = """
from sqlalchemy import Column, Integer, MetaData, Table

metadata = MetaData()
Table("copied", metadata, Column("id", Integer, primary_key=True))
"""
INDEXED = (
    "SELECT count(*) FROM pg_index JOIN pg_class c ON c.oid = indexrelid WHERE relname = 'note_text' AND indisvalid"
)


async def run(nodes: Mapping[str, str], *command: str, ini: Path = INI) -> tuple[int | None, str]:
    """Run `alembic` with these variables, as a shell would: how it ended, and what it said."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "alembic", "-c", str(ini), *command),
        cwd=ini.parent,
        env={**{name: value for name, value in os.environ.items() if not name.startswith("LAGWISE_")}, **nodes},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    return process.returncode, said.decode()


async def alembic(cluster: Cluster, *command: str) -> None:
    """Run `alembic`, knowing the nodes by the names they were born with."""
    status, said = await run(environment(cluster), *command)
    assert status == 0, said


async def indexes(node: Node) -> int:
    """How many of the migration's indexes are valid on this node."""
    return int(await node.fetchval(INDEXED))


async def test_migrations_go_to_the_primary_wherever_it_is(doomed: Cluster) -> None:
    """Up on the configured primary; down on a promoted replica, while the old primary still takes writes."""
    old, heir, _ = doomed.nodes.values()
    await alembic(doomed, "upgrade", "head")
    await doomed.caught_up()
    assert [await indexes(node) for node in doomed.nodes.values()] == [1, 1, 1]
    await doomed.promote(heir.name)
    await alembic(doomed, "downgrade", "base")
    assert (await indexes(heir), await indexes(old)) == (0, 1)


@pytest.fixture
async def empty(cluster: Cluster) -> AsyncIterator[tuple[str, str]]:
    """An empty database, on the primary and on a replica: `--autogenerate` drops what is not in the models."""
    await cluster.primary.execute("CREATE DATABASE copied")
    await cluster.caught_up()
    one, other = (make_url(node.url).set(database="copied") for node in (cluster.primary, cluster.replicas[0]))
    yield one.render_as_string(hide_password=False), other.render_as_string(hide_password=False)
    await cluster.primary.execute("DROP DATABASE copied WITH (FORCE)")


@pytest.mark.parametrize("replicas", ["", "berlin={}"], ids=["without-replicas", "named"])
async def test_it_is_complete_to_copy(empty: tuple[str, str], tmp_path: Path, replicas: str) -> None:
    """As the page says: Alembic's own template, with this `env.py`; without replicas, and with a name for one."""
    page = (INI.parents[2] / "docs" / "patterns.md").read_text()
    assert "`alembic init -t async migrations`, and this `env.py` in place of `migrations/env.py`" in page
    ini = tmp_path / "alembic.ini"
    nodes = {"LAGWISE_PRIMARY": empty[0], "LAGWISE_REPLICAS": replicas.format(empty[1])}
    told = [await run({}, "init", "-t", "async", str(tmp_path / "migrations"), ini=ini)]
    shown = (INI.parent / "env.py").read_text()
    models = shown.replace("target_metadata = MetaData()", "from models import metadata as target_metadata")
    assert models != shown
    (tmp_path / "migrations" / "env.py").write_text(models)
    (tmp_path / "models.py").write_text(MODELS)
    told.append(await run(nodes, "revision", "--autogenerate", "-m", "first", ini=ini))
    told.append(await run(nodes, "upgrade", "head", ini=ini))
    told.append(await run(nodes, "check", ini=ini))  # fails where a table of the models is missing
    assert [status for status, _ in told] == [0, 0, 0, 0], told


async def test_migrations_go_past_a_pooler(cluster: Cluster) -> None:
    """With the setting of a pooler in transaction mode nothing is migrated, and the error says what to give."""
    status, said = await run(
        {"LAGWISE_POOLING": "transaction", "LAGWISE_PRIMARY": cluster.primary.url}, "upgrade", "head"
    )
    assert status == 1
    assert "give them the servers' own URLs, and LAGWISE_POOLING=session" in said
    assert await cluster.primary.fetchval("SELECT to_regclass('note')") is None
