"""Starlette and Litestar: the same middleware, and nothing of FastAPI."""

import pytest

from lagwise.testing import Cluster

from .loading import browsers, loaded
from .promise import KEPT, kept

EXAMPLES = {"starlette": "starlette_app", "litestar": "litestar_app"}


@pytest.mark.parametrize("framework", EXAMPLES)
async def test_own_writes_and_reads_on_replicas(
    lagging: Cluster, monkeypatch: pytest.MonkeyPatch, framework: str
) -> None:
    """The example finds its client's writes at once, and reads from replicas."""
    pytest.importorskip(framework, reason=f"{framework} is not installed: uv sync --group integrations")
    example = loaded(f"examples.patterns.{EXAMPLES[framework]}", lagging, monkeypatch)
    async with browsers(example) as (client, stranger):
        assert await kept(lagging, client, stranger, framework) == KEPT


@pytest.mark.parametrize("framework", EXAMPLES)
async def test_commit_precedes_the_response(
    cluster: Cluster, refusing: str, monkeypatch: pytest.MonkeyPatch, framework: str
) -> None:
    """A COMMIT that fails is a 500, not a success that was announced."""
    pytest.importorskip(framework, reason=f"{framework} is not installed: uv sync --group integrations")
    example = loaded(f"examples.patterns.{EXAMPLES[framework]}", cluster, monkeypatch)
    async with browsers(example) as (client, _):
        assert (await client.post(f"/items/{refusing}")).status_code == 500
