"""Commits that end together share one question, and nobody takes an answer that was asked for too early."""

import asyncio
from typing import Any

import pytest

from lagwise._nodes.positions import Positions
from tests.kit.answers import stands_at


class Server:
    """Answers when it is let, with a position that grows by one at each question."""

    def __init__(self) -> None:
        self.asked = 0
        self.questions: asyncio.Queue[asyncio.Event] = asyncio.Queue()


class Driver:
    """A connection to it, as far as a position needs one."""

    def __init__(self, server: Server, error: Exception | None = None) -> None:
        self.server = server
        self.error = error
        self.terminated = False

    async def fetchrow(self, _sql: str, **_how: Any) -> dict[str, Any]:
        self.server.asked += 1
        lsn = self.server.asked << 20
        answer = asyncio.Event()
        self.server.questions.put_nowait(answer)
        await answer.wait()
        if self.error is not None:
            raise self.error
        return stands_at(lsn)

    def terminate(self) -> None:
        self.terminated = True


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def positions() -> Positions:
    return Positions(timeout=5, clock=lambda: 0.0)


async def test_those_who_come_during_a_question_share_the_next(server: Server, positions: Positions) -> None:
    """Ten commits while one question is under way: one more question, and its answer for all ten."""
    first = asyncio.create_task(positions.after_commit(Driver(server)))
    answer = await server.questions.get()
    later = [asyncio.create_task(positions.after_commit(Driver(server))) for _ in range(10)]
    await asyncio.sleep(0)  # they have all begun
    answer.set()
    (await server.questions.get()).set()
    found = await asyncio.gather(first, *later)
    assert [reading.lsn >> 20 for reading in found if reading] == [1] + [2] * 10


@pytest.mark.parametrize("end", ["error", "cancelled"])
async def test_a_question_that_fails_is_asked_again_by_those_who_wait(
    server: Server, positions: Positions, end: str
) -> None:
    """The one who asked has no position, and its connection is given up; the others ask on theirs."""
    broken, whole = Driver(server, OSError() if end == "error" else None), Driver(server)
    first = asyncio.create_task(positions.after_commit(broken))
    answer = await server.questions.get()
    second = asyncio.create_task(positions.after_commit(whole))
    await asyncio.sleep(0)  # it has begun
    if end == "cancelled":
        first.cancel()
    answer.set()
    (await server.questions.get()).set()
    reading = await second
    assert reading is not None
    assert reading.lsn >> 20 == 2
    assert (broken.terminated, whole.terminated) == (True, False)
    if end == "cancelled":
        with pytest.raises(asyncio.CancelledError):
            await first
    else:
        assert await first is None


async def test_one_who_waits_may_be_cancelled(server: Server, positions: Positions) -> None:
    """Nobody else notices."""
    first = asyncio.create_task(positions.after_commit(Driver(server)))
    answer = await server.questions.get()
    waiting = [asyncio.create_task(positions.after_commit(Driver(server))) for _ in range(3)]
    await asyncio.sleep(0)  # they have all begun
    waiting[0].cancel()
    answer.set()
    (await server.questions.get()).set()
    ends = await asyncio.gather(first, *waiting, return_exceptions=True)
    assert isinstance(ends[1], asyncio.CancelledError)
    assert all(ends[index] is not None and not isinstance(ends[index], BaseException) for index in (0, 2, 3))
