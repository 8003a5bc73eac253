"""Finds a pooler between the driver and its server, and whether that pooler hands server processes on."""

import asyncio
from collections.abc import Awaitable, Callable
from math import inf
from time import monotonic
from typing import Any

from lagwise._pools.driver import TransactionPooler

_PID = "SELECT pg_catalog.pg_backend_pid()"
_ROUNDS = 3
_PATIENCE = 1.0  # seconds; a connection with a server process of its own does not wait for one
# How long a pooler is believed to leave each connection its server process, seconds. Its mode may be changed while it
# runs; to find out takes another connection and a dozen questions, once in that time, and only when one is opened.
_BELIEVED = 60.0
Connect = Callable[[], Awaitable[Any]]


class Pooler:
    """What is known of a pooler before one node. A pooler tells the driver a process number of its own.

    In session mode a connection keeps its server process, which is all that lagwise relies on. So a number that differs
    proves nothing yet: a second connection, which holds a process in a transaction, tells the modes apart.
    """

    def __init__(self, found: Callable[[], None] = lambda: None) -> None:
        """`found` is called when transactions turn out to run on several server processes."""
        self._found = found
        self._believed_until = -inf

    def doubt(self) -> None:
        """Look again at the next new connection: a server did not know what this connection had prepared there."""
        self._believed_until = -inf

    async def check(self, driver: Any, connect: Connect | None, pid: int | None = None) -> None:
        """Look at a new connection.

        Args:
            driver: asyncpg's connection, in no transaction.
            connect: opens another one of the same kind; None where the application connects by itself.
            pid: the number of its server process, if that was asked.

        Raises:
            TransactionPooler: its transactions run on several server processes.
        """
        if monotonic() < self._believed_until:
            return
        pid = await _pid(driver) if pid is None else pid
        if pid == driver.get_server_pid():
            return
        if self._believed_until > -inf:
            self._believed_until = monotonic() + _BELIEVED  # one looks again, and others do not wait for it
        try:
            hands_on = await _hands_on(driver, connect, pid)
        except BaseException:
            self.doubt()
            raise
        if hands_on:
            self.doubt()
            self._found()
            raise TransactionPooler('a pooler in transaction mode: say Router(..., pooling="transaction")')
        self._believed_until = monotonic() + _BELIEVED


def _transaction(driver: Any) -> Any:
    return driver.transaction(isolation="read_committed", readonly=True)  # a standby refuses SERIALIZABLE


async def _pid(driver: Any) -> int:
    """The server process, asked without a prepared statement that would stay there."""
    async with _transaction(driver):
        statement = await driver.prepare(_PID, name="")
        return int(await statement.fetchval())


async def _hands_on(driver: Any, connect: Connect | None, pid: int) -> bool:
    other = None if connect is None else await connect()
    try:
        for _ in range(_ROUNDS):
            if other is not None:
                async with _transaction(other):
                    statement = await other.prepare(_PID, name="")
                    # A process that two connections use at the same time belongs to neither.
                    if await statement.fetchval() == pid or await _moves(driver, pid):
                        return True
            # One after the other: a pooler may take the process that has rested longest.
            for _ in range(2):
                if await _moves(driver, pid):
                    return True
        return False
    finally:
        if other is not None:
            other.terminate()


async def _moves(driver: Any, pid: int) -> bool:
    try:
        async with asyncio.timeout(_PATIENCE):
            return await _pid(driver) != pid
    except TimeoutError:
        driver.terminate()
        return True
