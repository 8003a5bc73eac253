"""sqladmin: an admin interface that reads from replicas and writes on the primary."""

import re

import httpx
import pytest

from lagwise.testing import Cluster

from .loading import browsers, loaded
from .promise import KEPT, kept

pytest.importorskip("sqladmin", reason="sqladmin is not installed: uv sync --group integrations")


async def test_lists_are_a_replicas(lagging: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a form has created is in the list at once, and lists are read from replicas."""
    admin = loaded("examples.patterns.admin", lagging, monkeypatch)
    searched: list[str] = []

    async def create(client: httpx.AsyncClient, name: str) -> httpx.Response:
        return await client.post("/admin/item/create", data={"name": name})

    async def look(client: httpx.AsyncClient, name: str) -> httpx.Response:
        searched.append(name)
        return await client.get("/admin/item/list", params={"search": name})

    def count(answer: httpx.Response) -> int:
        return len(re.findall(rf">\s*{searched[-1]}\s*<", answer.text))

    async with browsers(admin) as (client, stranger):
        assert await kept(lagging, client, stranger, "admin", create, look, count) == KEPT
    assert admin.db.write.kw["autoflush"]  # sqladmin configured its own maker
