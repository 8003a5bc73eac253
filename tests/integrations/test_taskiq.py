"""taskiq: labels carry the token."""

import pytest

pytest.importorskip("taskiq", reason="taskiq is not installed: uv sync --group integrations")

from lagwise.testing import Cluster
from tests.kit.routers import both_in_rotation

from .jobs import PROMISED, promises
from .loading import loaded


async def test_a_task_sees_what_its_sender_wrote(lagging: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """A task waits for a replica, then reads from the primary; the next one starts with nothing seen."""
    example = loaded("examples.jobs.taskiq", lagging, monkeypatch)

    async def send(name: str) -> tuple[int, str]:
        sent = await example.count.kiq(name)
        answer: tuple[int, str] = (await sent.wait_result(timeout=20)).return_value
        return answer

    await example.broker.startup()
    try:
        await both_in_rotation(example.db)
        assert await promises(lagging, example.db, send, "taskiq") == PROMISED
    finally:
        await example.broker.shutdown()
