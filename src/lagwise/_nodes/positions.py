"""The primary's position after a commit: asked on the connection that committed, and shared by other commits."""

import asyncio
from collections.abc import Callable
from typing import Any

from lagwise._decide.view import Reading
from lagwise._nodes.probe import ask
from lagwise._pools.patience import Patience


class Positions:
    """One node's positions. At most one question is under way, however many commits end at once.

    A commit is covered by an answer to a question that was sent after it. So a commit that finds a question under
    way waits for it to end and asks the next one, unless another commit has asked that one meanwhile.

    The silence of a node is shared as its answers are: `timeout`, seconds, counts from the first question that got
    no answer, whatever becomes of that question. When it has run out, all commits that wait have no position.
    """

    def __init__(self, *, timeout: float, clock: Callable[[], float]) -> None:
        self._timeout = timeout
        self._clock = clock
        self._asked = 0
        self._answered = 0
        self._given_up = 0
        self._reading: Reading | None = None
        self._waiting = 0
        self._under_way: asyncio.Event | None = None
        self._patience: Patience | None = None
        self.shared = False
        """Whether the answer that was just returned is to another commit's question; read it before anything else."""

    async def after_commit(self, driver: Any) -> Reading | None:
        """A reading that was asked for after this call, or None when that fails, `timeout` seconds later at most.

        `driver` is the asyncpg connection that has just committed and is not in a transaction.
        """
        needed = self._asked + 1
        while self._answered < needed:
            if self._given_up >= needed:
                return None
            if self._under_way is None:
                reading = await self._ask(driver)
                self.shared = False
                return reading
            self._waiting += 1
            try:
                await self._under_way.wait()
            except BaseException:
                self._waiting -= 1
                self._forget_silence()
                raise
            self._waiting -= 1
        self.shared = True
        return self._reading

    async def _ask(self, driver: Any) -> Reading | None:
        self._asked += 1
        number, ended = self._asked, asyncio.Event()
        self._under_way = ended
        if self._patience is None or self._patience.ran_out:
            self._patience = Patience(self._timeout, driver.terminate).__enter__()
        patience = self._patience
        try:
            reading = await ask(driver, alone=True, patience=patience, clock=self._clock)
        except BaseException as error:
            driver.terminate()  # the state of the connection is unknown
            if isinstance(error, Exception):
                return None
            raise
        else:
            self._reading, self._answered = reading, number
            patience.stop()
            self._patience = None
            return reading
        finally:
            self._under_way = None
            if patience.ran_out:
                # Commits that wait would have shared the answer to the next question: they share its failure.
                self._asked += 1
                self._given_up, self._patience = self._asked, None
            self._forget_silence()
            ended.set()

    def _forget_silence(self) -> None:
        """Count no more when no commit is left that asks: the next commit begins anew."""
        if self._patience is not None and not self._waiting and self._under_way is None:
            self._patience.stop()
            self._patience = None
