"""The page on testing: what its SQL and its words promise, beside its test files."""

from collections.abc import AsyncIterator

import pytest
from sqlalchemy import make_url, text

from lagwise import Router
from lagwise.testing import Cluster

from .pages import ROOT, blocks

PAGE = ROOT / "docs" / "testing.md"
SECURED = """
CREATE TABLE of_tenants (id serial PRIMARY KEY, tenant text);
ALTER TABLE of_tenants ENABLE ROW LEVEL SECURITY;
CREATE POLICY one ON of_tenants USING (tenant = 'a');
INSERT INTO of_tenants (tenant) VALUES ('a'), ('b')
"""


@pytest.fixture
async def secured(cluster: Cluster) -> AsyncIterator[Cluster]:
    """A table of two tenants, one of which may be seen, and the role of the page."""
    (sql,) = (block.code for block in blocks(PAGE) if block.language == "sql")
    await cluster.primary.execute(SECURED)
    await cluster.primary.execute(sql)
    yield cluster
    await cluster.primary.execute("DROP TABLE of_tenants; DROP OWNED BY shop; DROP ROLE shop")


async def test_row_security_binds_the_role_of_the_page(secured: Cluster) -> None:
    """The superuser of the cluster's URLs sees every row; the role sees and writes its own tenant's alone."""
    ours = make_url(secured.primary.url)
    seen = []
    for url in (ours, ours.set(username="shop", password="secret")):
        async with Router(url) as db, db.write.begin() as session:
            seen.append((await session.scalars(text("SELECT tenant FROM of_tenants"))).all())
            await session.execute(text("INSERT INTO of_tenants (tenant) VALUES ('a')"))
    assert seen == [["a", "b"], ["a", "a"]]
