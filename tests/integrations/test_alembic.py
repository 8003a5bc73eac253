"""Alembic with its async template: migrations run on the primary, wherever it is."""

import asyncio
import os
import sys
from pathlib import Path

import pytest

pytest.importorskip("alembic", reason="alembic is not installed: uv sync --group integrations")

from lagwise.testing import Cluster, Node

from .loading import environment

INI = Path(__file__).parents[2] / "examples" / "alembic" / "alembic.ini"
INDEXED = (
    "SELECT count(*) FROM pg_index JOIN pg_class c ON c.oid = indexrelid WHERE relname = 'note_text' AND indisvalid"
)


async def alembic(cluster: Cluster, *command: str) -> None:
    """Run `alembic`, as a shell would, knowing the nodes by the names they were born with."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "alembic", "-c", str(INI), *command),
        env={**os.environ, **environment(cluster)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    assert process.returncode == 0, said.decode()


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
