"""The roles of docs/permissions.md do what the page says of them."""

import asyncpg  # type: ignore[import-untyped]
import pytest
from sqlalchemy import make_url, text

from lagwise import ReadOnly, Router
from lagwise.testing import Cluster
from tests.kit.routers import in_rotation

from .pages import ROOT, blocks

LIFTED = "SET default_transaction_read_only = off"
WRITE = "INSERT INTO item (name) VALUES ('climbed')"


def connected(url: str) -> str:
    """The URL in the form that the driver reads."""
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)


async def test_a_role_that_may_only_read_is_a_wall(cluster: Cluster) -> None:
    """With the fence lifted by hand the writing role writes, and the reading role is refused; its reads are routed."""
    grant, wall = (block.code for block in blocks(ROOT / "docs" / "permissions.md") if block.language == "sql")
    await cluster.primary.execute(
        "CREATE ROLE app LOGIN PASSWORD 'a secret'; GRANT ALL ON ALL TABLES IN SCHEMA public TO app"
    )
    await cluster.primary.execute("GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO app")
    try:
        await cluster.primary.execute(grant)
        await cluster.primary.execute(wall)
        await cluster.caught_up()
        roles = {"app": "a secret", "app_read": "another-secret"}
        shown = [block.code for block in blocks(ROOT / "docs" / "permissions.md") if block.language == "python"]
        assert any(f"//app_read:{roles['app_read']}@" in code for code in shown)
        urls = {
            (role, node.name): make_url(node.url)
            .set(username=role, password=password)
            .render_as_string(hide_password=False)
            for role, password in roles.items()
            for node in (cluster.primary, cluster.replicas[0])
        }
        fenced = await asyncpg.connect(connected(urls["app", "primary"]))
        walled = await asyncpg.connect(connected(urls["app_read", "primary"]))
        try:
            with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
                await walled.execute(WRITE)  # its fence comes from the role
            for connection in (fenced, walled):
                await connection.execute(LIFTED)
            await fenced.execute(WRITE)
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await walled.execute(WRITE)
        finally:
            await fenced.close()
            await walled.close()
        async with Router(urls["app", "primary"], {"replica-1": urls["app_read", "replica-1"]}) as db:
            await in_rotation(db, "replica-1")
            async with db.read() as session:
                await session.execute(text("SELECT count(*) FROM item"))
                assert session.info["lagwise.route"].node == "replica-1"
            with pytest.raises(ReadOnly):
                async with db.read() as session:
                    await session.execute(text(WRITE))
    finally:
        for role in ("app_read", "app"):
            await cluster.primary.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")
        await cluster.primary.execute("DELETE FROM item WHERE name = 'climbed'")
