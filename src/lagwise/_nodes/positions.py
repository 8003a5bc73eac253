"""Where the primary's log stands after a commit: asked on the connection that committed, shared by those who can."""

import asyncio
from collections.abc import Callable
from typing import Any

from lagwise._decide.view import Reading
from lagwise._nodes.probe import ask


class Positions:
    """One node's positions. At most one question is under way, however many commits end at once.

    A commit is covered by an answer to a question that was sent after it. So whoever finds a question under
    way waits for it to end and asks the next one, or finds that another has asked it meanwhile.
    """

    def __init__(self, *, timeout: float, clock: Callable[[], float]) -> None:
        self._timeout = timeout
        self._clock = clock
        self._asked = 0
        self._answered = 0
        self._reading: Reading | None = None
        self._under_way: asyncio.Event | None = None

    async def after_commit(self, driver: Any) -> Reading | None:
        """A reading that was asked for after this call, or None when that fails; `timeout` bounds each question.

        `driver` is the asyncpg connection that has just committed and is not in a transaction.
        """
        needed = self._asked + 1
        while self._answered < needed:
            if self._under_way is None:
                return await self._ask(driver)
            await self._under_way.wait()
        return self._reading

    async def _ask(self, driver: Any) -> Reading | None:
        self._asked += 1
        number, ended = self._asked, asyncio.Event()
        self._under_way = ended
        try:
            reading = await ask(driver, alone=True, timeout=self._timeout, clock=self._clock)
        except BaseException as error:
            driver.terminate()  # nobody knows in which state the question left it
            if isinstance(error, Exception):
                return None
            raise
        else:
            self._reading, self._answered = reading, number
            return reading
        finally:
            self._under_way = None
            ended.set()
