"""OpenTelemetry's instrumentation of SQLAlchemy sees lagwise's engines, and tells their pools apart."""

import asyncio
import json
import sys
from asyncio.subprocess import PIPE
from pathlib import Path
from typing import Any

import pytest

from lagwise.testing import Cluster

pytest.importorskip("opentelemetry.instrumentation.sqlalchemy", reason="not installed: uv sync --group integrations")

ROOT = Path(__file__).parents[2]
ROLES = ("writing", "reading", "monitoring")
PROGRAM = '''
"""Reads and writes once, with the instrumentation switched on at the moment that the command line names."""

import asyncio, json, sys

from opentelemetry.instrumentation.sqlalchemy import SQLAlchemyInstrumentor
from tests.kit.telemetry import Telemetry

told = Telemetry()


def instrument():
    # The instrumentation declares that it does not know SQLAlchemy 2.1 yet.
    SQLAlchemyInstrumentor().instrument(
        meter_provider=told.meters, tracer_provider=told.tracers, skip_dep_check=True
    )


when, primary, replica = sys.argv[1:]
if when == "before":
    instrument()

from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
from lagwise import Router

if when == "after":
    instrument()


async def naive():
    engine = create_async_engine(primary)  # by the name that it was imported by
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 'naive'"))
    seen = max([number for (pool, _), number in usage().items() if pool.startswith("postgresql")], default=0)
    await engine.dispose()
    return seen


def usage():
    return {
        (point.attributes["pool.name"], point.attributes["state"]): point.value
        for metric in told.metrics()
        if metric.name == "db.client.connections.usage"
        for point in metric.data.data_points
    }


async def main():
    db = Router(primary, {"replica-1": replica})
    async with db:
        while not db.view.rotation:
            await asyncio.sleep(0.01)
        async with db.read() as session:
            await session.execute(text("SELECT 'read'"))
            read = session.info["lagwise.route"].node
        async with db.write.begin() as session:
            await session.execute(text("UPDATE item SET name = 'written' WHERE false"))
        seen = [[*key, value] for key, value in usage().items()]
    plain = await naive()
    statements = [str((span.attributes or {}).get("db.statement")) for span in told.spans()]
    print(json.dumps({"read": read, "usage": seen, "ran": statements, "naive": plain}))


asyncio.run(main())
'''


@pytest.mark.parametrize("when", ["before", "after"])
async def test_it_sees_the_engines_whenever_it_is_switched_on(cluster: Cluster, when: str) -> None:
    """Before lagwise is imported and after: reads and writes have spans, and no two pools share a name.

    The naive variant is a program's own `from ... import create_async_engine` before that: it goes unseen.
    """
    urls = (cluster.primary.url, cluster.replicas[0].url)
    # Not `subprocess.run`: the cluster's proxies live in this event loop.
    ran = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM, when, *urls, stdout=PIPE, stderr=PIPE, cwd=ROOT
    )
    async with asyncio.timeout(60):
        out, errors = await ran.communicate()
    assert ran.returncode == 0, errors.decode()
    said: dict[str, Any] = json.loads(out)
    assert {statement for statement in said["ran"] if "read" in statement or "written" in statement} == {
        "SELECT 'read'",
        "UPDATE item SET name = 'written' WHERE false",
    }
    assert ("SELECT 'naive'" in said["ran"]) is (when == "before")
    idle = {pool: number for pool, state, number in said["usage"] if state == "idle"}
    used = {pool: number for pool, state, number in said["usage"] if state == "used"}
    # Switched on before SQLAlchemy's asyncio is imported, it counts every asynchronous engine twice.
    times = said["naive"] if when == "before" else 1
    assert {"primary.writing": times, f"{said['read']}.reading": times}.items() <= idle.items()
    assert {"primary.writing": 0, f"{said['read']}.reading": 0}.items() <= used.items()
    assert set(idle) <= {f"{node}.{role}" for node in ("primary", "replica-1") for role in ROLES}
