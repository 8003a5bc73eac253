"""The register in the cluster of all tests, and keys that no other test has used."""

from uuid import uuid4

import pytest

from lagwise.testing import Cluster

from .application import prepare


@pytest.fixture(scope="session")
async def register(running: Cluster) -> None:
    """The tables of the register, in the cluster of all tests."""
    await prepare(running)


@pytest.fixture
def key() -> str:
    """A key that no other test has used."""
    return f"key-{uuid4().hex[:8]}"
