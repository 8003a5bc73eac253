"""A transaction for each test, rolled back at its end: the fixtures of a conftest.py."""

from collections.abc import AsyncIterator

import pytest
from httpx import ASGITransport, AsyncClient

from examples.patterns.database import db
from examples.patterns.get_db import api, app
from lagwise.fastapi import lifespan
from lagwise.testing import rolled_back


@pytest.fixture
async def client() -> AsyncIterator[AsyncClient]:
    transport = ASGITransport(app)
    async with (
        lifespan(db)(api),
        rolled_back(db),  # each session of the application, whatever opens it
        AsyncClient(transport=transport, base_url="http://test") as client,
    ):
        yield client
