"""Many tenants in one database, in the four usual ways: each sees its own rows, all of them, and no others.

`LAGWISE_TEST_TENANTS=1000` asks for more requests.
"""

import asyncio
import importlib
import os

import httpx
import pytest

from lagwise.testing import Cluster
from tests.kit.patterns import by_replica, running

REQUESTS = int(os.environ.get("LAGWISE_TEST_TENANTS", "120"))
TENANTS = [f"tenant_{number}" for number in range(8)]
_SCHEMA = "CREATE SCHEMA {0} AUTHORIZATION shop; CREATE TABLE {0}.notes (id serial PRIMARY KEY, text text); "
_OWNED = "ALTER TABLE {0}.notes OWNER TO shop"
_SHARED = """
CREATE TABLE tenant_notes (id serial PRIMARY KEY, tenant_id text, text text);
ALTER TABLE tenant_notes OWNER TO shop;
CREATE TABLE secured_notes (id serial PRIMARY KEY, tenant_id text DEFAULT current_setting('app.tenant'), text text);
ALTER TABLE secured_notes OWNER TO shop;
"""


@pytest.fixture(scope="module")
async def tenants(lagging: Cluster) -> Cluster:
    """The tables of all tenants, and the policy that the example shows."""
    from examples.patterns import tenant_row_security

    policy = str(tenant_row_security.__doc__).partition("\n\n")[2]
    await lagging.primary.execute(_SHARED + policy)
    await lagging.primary.execute("; ".join((_SCHEMA + _OWNED).format(tenant) for tenant in TENANTS))
    await lagging.caught_up()
    return lagging


@pytest.mark.parametrize("way", ["schemas", "translate", "rows", "row_security"])
async def test_nothing_leaks_between_tenants(tenants: Cluster, way: str) -> None:
    """Of interleaved requests none sees another tenant's row, on no node; and each client all that it wrote."""
    app = importlib.import_module(f"examples.patterns.tenant_{way}").app
    on_replicas: list[bool] = []
    async with running(app) as connect:

        async def browse(tenant: str) -> None:
            mine = {"X-Tenant": tenant}
            written: set[str] = set()
            async with connect() as client, connect() as colleague:

                async def seen(by: httpx.AsyncClient) -> set[str]:
                    answer = await by.get("/notes", headers=mine)
                    notes = set(answer.json())
                    assert {note for note in notes if tenant not in note} == set()
                    if by is colleague:  # brings no token: a replica's answer, and mostly an old one
                        on_replicas.append(by_replica(answer))
                    return {note for note in notes if note.startswith(way)}

                for turn in range(REQUESTS // len(TENANTS) // 3):
                    written.add(note := f"{way}-{tenant}-{turn}")
                    assert (await client.post(f"/notes/{note}", headers=mine)).status_code == 200
                    assert await seen(client) == written
                    assert await seen(colleague) <= written

        await asyncio.gather(*map(browse, TENANTS))
    assert all(on_replicas)
    assert len(on_replicas) >= REQUESTS // 4


async def test_a_tenant_without_a_name_gets_nothing(tenants: Cluster) -> None:
    """No header, and no name that would be SQL, reaches the database; without a tenant row security refuses."""
    from examples.patterns import tenant_schemas

    async with running(tenant_schemas.app) as connect, connect() as http:
        assert (await http.get("/notes")).status_code == 422
        assert (await http.get("/notes", headers={"X-Tenant": "public; DROP TABLE users"})).status_code == 400
