"""SQLAlchemy's own tests of its sessions pass with lagwise's classes as they pass with SQLAlchemy's.

The tests come out of the source distribution of the installed version. Outcomes are kept in the user's cache folder
and taken from there while the sources of lagwise, of the plugin and of SQLAlchemy are the same.
"""

import asyncio
import os
from collections.abc import Mapping

import pytest
from sqlalchemy import make_url

from lagwise.testing import Cluster

from .upstream import sdist, suite
from .upstream.suite import Outcomes, Run

pytestmark = [pytest.mark.timeout(900), pytest.mark.long]

ASYNC, SYNC = "test/ext/asyncio/test_session.py", "test/orm/test_session.py"
RUNS = (
    Run(ASYNC, "plain"),
    Run(ASYNC, "classes"),
    Run(ASYNC, "router"),
    Run(SYNC, "plain"),
    Run(SYNC, "classes"),
)

# What may fail that passes with plain classes, and why. With the classes alone nothing may.
ALLOWED: Mapping[Run, Mapping[str, str]] = {
    Run(ASYNC, "classes"): {},
    Run(SYNC, "classes"): {},
    Run(ASYNC, "router"): {
        "AsyncSessionTransactionTest::test_bound_connection_async_bind": (
            "compares engines: bound_connection(bind=) is asked for the engine passed in, "
            "and a transaction is on the Router's twin of it"
        ),
        "AsyncAttrsTest::test_the_famous_lazyloader_gotcha": (
            "begins to listen to an engine that nothing has listened to, while a session holds a connection of its "
            "twin: the listener hears the connections that are taken from then on"
        ),
    },
}


@pytest.fixture(scope="module")
async def results(tmp_path_factory: pytest.TempPathFactory) -> dict[Run, Outcomes]:
    """The outcomes of all runs, two at a time, each on a database of its own; one of pytest's workers runs them."""
    try:
        await asyncio.to_thread(sdist.sources)
    except sdist.NotToBeHad as error:
        pytest.skip(str(error))
    folder = tmp_path_factory.getbasetemp()
    with suite.Shared(folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) as shared:
        found = {run: outcomes for run in RUNS if (outcomes := shared.found(run)) is not None}
        for outcomes in await _run([run for run in RUNS if run not in found]):
            shared.add(outcomes)
            found[outcomes.run] = outcomes
    return found


async def _run(missing: list[Run]) -> list[Outcomes]:
    if not missing:
        return []
    async with Cluster(replicas=0) as cluster:
        turns = asyncio.Semaphore(2)

        async def go(run: Run) -> Outcomes:
            async with turns:
                return await suite.outcomes(run, await _database(cluster, run) if run.asynchronous else "sqlite://")

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(go(run)) for run in missing]
        return [task.result() for task in tasks]


async def _database(cluster: Cluster, run: Run) -> str:
    """The URL of a new database as SQLAlchemy's suite wants it."""
    name = f"upstream_{run.mode}"
    await cluster.primary.execute(f"CREATE DATABASE {name}")
    async with cluster.primary.connect(name) as connection:
        await connection.execute("CREATE SCHEMA test_schema")
    return make_url(cluster.primary.direct_url).set(database=name).render_as_string(hide_password=False)


@pytest.mark.parametrize("file", [ASYNC, SYNC])
def test_the_suite_is_sound_with_sqlalchemys_own_classes(results: dict[Run, Outcomes], file: str) -> None:
    """Nothing fails with SQLAlchemy's classes: or the comparison with lagwise's would say little."""
    plain = results[Run(file, "plain")]
    assert plain.failures == {}
    assert len(plain.passed) > 50
    plain.keep()


@pytest.mark.parametrize("run", ALLOWED, ids=lambda run: f"{run.file.split('/')[1]}-{run.mode}")
def test_what_passes_with_plain_sessions_passes_with_routed_ones(results: dict[Run, Outcomes], run: Run) -> None:
    """Every test that passes with plain sessions passes with routed ones, but for what is named."""
    routed = results[run]
    fail = results[Run(run.file, "plain")].passed - routed.passed
    unexpected = fail - ALLOWED[run].keys()
    assert not unexpected, "\n\n".join(f"{name}\n{routed.failure(name)}" for name in sorted(unexpected))
    routed.keep()
