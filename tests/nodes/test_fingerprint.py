"""What tells that a database's catalog is as it was when it was read."""

from __future__ import annotations

import re
from typing import Any

import pytest

from lagwise._nodes import catalog
from lagwise._nodes.catalog import read_catalog
from lagwise._nodes.catalog_query import SQL
from lagwise._nodes.fingerprint import COLUMNS, fingerprint
from lagwise.testing import Cluster

SETUP = """
CREATE TABLE fingered (id int PRIMARY KEY, at int);
CREATE TABLE fingered_child (id int REFERENCES fingered);
CREATE VIEW fingered_view AS SELECT at FROM fingered;
CREATE FUNCTION fingered_f(int) RETURNS int LANGUAGE sql AS 'SELECT $1';
CREATE FUNCTION fingered_t() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE TRIGGER fingered_trigger AFTER INSERT ON fingered EXECUTE FUNCTION fingered_t();
CREATE POLICY fingered_policy ON fingered USING (true);
CREATE DOMAIN fingered_domain AS int;
CREATE TYPE fingered_pair AS (a int, b int);
"""
# One for each way in which a reading may come to say something else.
CHANGES = [
    "ALTER FUNCTION fingered_f STABLE",
    "ALTER FUNCTION fingered_f RENAME TO fingered_g",
    "ALTER FUNCTION fingered_f SET SCHEMA elsewhere",
    "CREATE FUNCTION fingered_f(int, int) RETURNS int LANGUAGE sql AS 'SELECT $1'",
    "CREATE AGGREGATE fingered_a(int) (SFUNC = int4pl, STYPE = int)",
    "CREATE OPERATOR === (FUNCTION = int4eq, LEFTARG = int, RIGHTARG = int)",
    "CREATE OPERATOR CLASS fingered_c FOR TYPE int USING btree AS FUNCTION 1 btint4cmp(int, int)",
    "CREATE CAST (fingered_pair AS int) WITH INOUT AS IMPLICIT",
    "ALTER DOMAIN fingered_domain ADD CHECK (VALUE > random())",
    "CREATE DOMAIN fingered_further AS fingered_domain",
    "CREATE TYPE fingered_range AS RANGE (SUBTYPE = fingered_domain)",
    "CREATE OR REPLACE VIEW fingered_view AS SELECT at + 1 AS at FROM fingered",
    "ALTER POLICY fingered_policy ON fingered USING (fingered_f(1) = 1)",
    "ALTER TABLE fingered ENABLE ROW LEVEL SECURITY",
    "ALTER TABLE fingered ALTER at SET DEFAULT fingered_f(1)",
    "ALTER TABLE fingered ADD COLUMN further fingered_domain",
    "ALTER TABLE fingered ADD CHECK (fingered_f(id) = id)",
    "ALTER TABLE fingered DISABLE TRIGGER fingered_trigger",
    "ALTER TABLE fingered RENAME TO fingered_otherwise",
    "CREATE RULE fingered_rule AS ON UPDATE TO fingered DO ALSO SELECT 1",
    "CREATE TABLE fingered_heir () INHERITS (fingered)",
    "ALTER TABLE fingered_child ADD FOREIGN KEY (id) REFERENCES fingered ON DELETE CASCADE",
    "ALTER SCHEMA elsewhere RENAME TO nowhere",
    "DROP TRIGGER fingered_trigger ON fingered",
    "CREATE OR REPLACE FUNCTION fingered_f(int DEFAULT 1) RETURNS int LANGUAGE sql AS 'SELECT $1'",
    "ALTER DOMAIN fingered_domain SET DEFAULT 1",
    "CREATE INDEX ON fingered ((at + 1))",
    "CREATE TRIGGER fingered_when AFTER INSERT ON fingered FOR EACH ROW WHEN (true) EXECUTE FUNCTION fingered_t()",
]


@pytest.fixture(scope="module")
async def described(running: Cluster) -> Any:
    """A session in a schema of its own, which has one thing of every kind."""
    async with running.primary.connect() as connection:
        await connection.execute("CREATE SCHEMA here; CREATE SCHEMA elsewhere; SET search_path = here")
        await connection.execute(SETUP)
        yield connection
        await connection.execute("DROP SCHEMA here, elsewhere CASCADE")


@pytest.mark.parametrize("change", CHANGES)
async def test_each_change_is_seen(described: Any, change: str) -> None:
    """Another fingerprint after a change of any kind, and the former one when it is undone."""
    before = await fingerprint(described, 20)
    await described.execute("BEGIN")
    try:
        await described.execute(change)
        assert await fingerprint(described, 20) != before
    finally:
        await described.execute("ROLLBACK")
    assert await fingerprint(described, 20) == before


async def test_every_column_that_is_read_is_in_it(cluster: Cluster) -> None:
    """A column that the reading gets to know later is missed here first."""
    named = set(re.findall(r"\w+", SQL))
    tables = {word for word in named if word.startswith("pg_")} - {"pg_catalog"}
    columns = await cluster.primary.fetch(
        "SELECT c.relname, a.attname FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid"
        " WHERE c.relname = ANY ($1) AND c.relnamespace = 'pg_catalog'::regnamespace AND a.attnum > 0",
        list(tables),
    )
    assert set(COLUMNS) == {row["relname"] for row in columns}
    read = {(row["relname"], row["attname"]) for row in columns if row["attname"] in named - {"oid"}}
    assert read <= {(table, column) for table, columns in COLUMNS.items() for column in re.findall(r"\w+", columns)}


async def test_what_has_not_changed_is_not_read_again(described: Any) -> None:
    """The same Catalog, with the judgements made by it; another one after a change; at most eight are kept."""
    before = await read_catalog(described, 20)
    assert await read_catalog(described, 20) is before
    for number in range(catalog._KEPT):
        await described.execute(f"CREATE FUNCTION fingered_{number}() RETURNS int LANGUAGE sql STABLE AS 'SELECT 1'")
        changed = await read_catalog(described, 20)
        assert (before.known.hold([f"fingered_{number}"]), changed.known.hold([f"fingered_{number}"])) == (False, True)
        assert len(catalog._latest) <= catalog._KEPT
    await described.execute("; ".join(f"DROP FUNCTION fingered_{number}" for number in range(catalog._KEPT)))
    assert await read_catalog(described, 20) is not before


async def test_a_backslash_may_mean_something_else(described: Any) -> None:
    """The setting of the session that reads is part of what a reading says."""
    before = await read_catalog(described, 20)
    await described.execute("SET standard_conforming_strings = off")
    assert (before.standard_strings, (await read_catalog(described, 20)).standard_strings) == (True, False)
    await described.execute("RESET standard_conforming_strings")
