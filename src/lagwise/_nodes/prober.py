"""The monitor's own connection to one node, and the connections that replace it when there is none."""

from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Any

from asyncpg import InsufficientPrivilegeError, PostgresError  # type: ignore[import-untyped]
from sqlalchemy.engine import Connection
from sqlalchemy.ext.asyncio import AsyncEngine

from lagwise._decide.lsn import LSN
from lagwise._decide.view import Reading, Role
from lagwise._nodes.probe import FLUSH, answer, ask
from lagwise._nodes.processes import Processes
from lagwise._pools.counters import checked_out, idle
from lagwise._pools.driver import TransactionPooler, is_closed
from lagwise._pools.patience import Patience, patient

_DEAD = 3  # how many idle connections of a pool may turn out to be dead before the probe has failed


class Prober:
    """Reads one node over a connection that no pool, and no request, can take away.

    Where no new connection is possible, the prober asks over one that works: its own older one, or an idle one of the
    node's pools, borrowed for the length of the question. So a node that is full is still read, as long as the
    connections that it has accepted work.

    `timeout` bounds the connect and each question, in seconds. `pooled` gives the engines of the node's pools, `held`
    the connections that sessions hold. `framed`: each question has a transaction of its own.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        *,
        alone: bool,
        timeout: float,
        clock: Callable[[], float],
        pooled: Callable[[], Iterable[AsyncEngine]] = tuple,
        held: Callable[[], Iterable[Connection]] = tuple,
        framed: bool = False,
    ) -> None:
        self._source = engine
        self._timeout = timeout
        self._clock = clock
        self._alone = alone
        self._framed = framed
        self._pooled = pooled
        self._held = held
        self._driver: Any = None
        self._apart: Any = None
        self._latest: Reading | None = None
        self._processes = Processes(clock, countable=not framed)
        self._lost: Callable[[], None] = lambda: None
        self.distrusted = False
        """Whether an older connection proves nothing: a session got no new one, or timed out. A new one ends it."""
        self.refusal: Exception | None = None
        """Why the latest probe got no new connection, when it tried and was answered over an older one."""

    def report_to(self, lost: Callable[[], None]) -> None:
        """Call `lost` when the server closes the connection between two probes."""
        self._lost = lost

    def distrust(self) -> None:
        """Ask the next time over a new connection."""
        self.distrusted = True

    @property
    def hidden(self) -> tuple[str, ...]:
        """Texts that no log may contain: the node's host and its password."""
        url = self._source.url
        return tuple(str(each) for each in (url.host, url.password) if each)

    @property
    def has_pooled(self) -> bool:
        """Whether any pool of the node holds a connection, idle or in use."""
        return any(idle(each.sync_engine.pool) or checked_out(each.sync_engine.pool) for each in self._pooled())

    @property
    def in_use(self) -> bool:
        """Whether sessions hold connections to the node that are open.

        A server that restarts has closed all of them. What it said before is no use then: a replica that has crashed
        may open again at an earlier position.
        """
        return any(not (one.invalidated or is_closed(one)) for one in self._held())

    async def read(self) -> Reading:
        """Ask the node for its identity and its position.

        Raises whatever the driver raises: for a connect that failed, when no older connection answered either.
        """
        self.refusal = None
        if self._source.dialect.name != "postgresql":
            return await self._read_other()
        try:
            driver = self._driver
            if driver is not None and not self.distrusted and not driver.is_closed():
                try:
                    return await self._read(driver)
                except TimeoutError:
                    raise
                except Exception:
                    if not driver.is_closed():
                        raise
                    # Perhaps only the connection is gone, with the question in flight: ask the node once more.
            try:
                connected = await self._connect(self._timeout)
            except Exception as error:
                reading = await self._read_otherwise(error)
                self.refusal = error
                return reading
            self._drop()
            self._driver, self.distrusted = connected, False
            return await self._read(connected)
        except BaseException:
            self._drop()
            raise

    @property
    def connected(self) -> bool:
        """Whether there is a connection of its own, over which the node has answered."""
        return self._driver is not None and self._latest is not None

    async def run(self, call: Callable[[Any, float], Awaitable[Any]], seconds: float) -> Any:
        """The answer of `call(driver, seconds)` on a connection made for it, which is closed then. Probes go on.

        Raises `TimeoutError` when the connection, or then the answer, takes more than `seconds`; else whatever the
        driver raises.
        """
        driver = self._apart = await self._connect(seconds)
        try:
            with Patience(seconds, driver.terminate) as patience:
                try:
                    answered = await call(driver, seconds)
                except Exception:
                    if patience.ran_out:
                        raise TimeoutError from None
                    raise
            await _goodbye(driver, self._timeout)
        finally:
            self._apart = None
            driver.terminate()
        return answered

    def cut_off(self) -> None:
        """End the connection of `run()`, which waits for a server that does not answer."""
        if self._apart is not None:
            self._apart.terminate()

    async def close(self, timeout: float) -> None:  # noqa: ASYNC109 - a server's, not a task's
        """Close the connection, gracefully where the server answers within `timeout`, seconds."""
        self._processes.forget()
        driver, self._driver = self._driver, None
        if driver is not None:
            await _goodbye(driver, timeout)

    async def _read(self, driver: Any) -> Reading:
        counted = self._processes.due
        try:
            reading = await self._ask(driver, count=counted)
        except InsufficientPrivilegeError:
            if not counted:
                raise
            counted = False
            reading = await self._ask(driver, count=False)
            self._processes.refused()
        if reading.stuck_since(self._latest):
            with suppress(PostgresError), Patience(self._timeout, driver.terminate) as patience:
                await answer(driver, driver.execute, FLUSH, patience=patience)
        self._processes.heard(reading, counted=counted)
        self._latest = reading = reading.after(self._latest)
        return reading

    async def _ask(self, driver: Any, *, count: bool) -> Reading:
        with Patience(self._timeout, driver.terminate) as patience:
            return await ask(
                driver,
                alone=self._alone,
                patience=patience,
                clock=self._clock,
                framed=self._framed,
                monitor=True,
                count=count,
            )

    async def _read_otherwise(self, refusal: Exception) -> Reading:
        """A reading over a connection made earlier; raises `refusal` when none answers."""
        if isinstance(refusal, TransactionPooler):
            raise refusal  # the older ones lead through the same pooler
        driver = self._driver
        if driver is not None and not driver.is_closed():
            try:
                return await self._read(driver)
            except Exception:
                raise refusal from None
        # A node that did not answer would let the next question wait as well.
        if not isinstance(refusal, TimeoutError):
            for engine in self._pooled():
                for _ in range(_DEAD):
                    if idle(engine.sync_engine.pool):
                        try:
                            return await self._borrow(engine)
                        except TimeoutError:
                            raise refusal from None
                        except Exception:  # noqa: S112 - of a connection that had been dead; the refusal is the cause
                            continue
        raise refusal

    async def _borrow(self, engine: AsyncEngine) -> Reading:
        async with patient(self._timeout * 2), engine.connect() as connection:
            driver: Any = (await connection.get_raw_connection()).driver_connection
            try:
                return await self._read(driver)
            except BaseException:
                # The state of the connection is unknown: no session may get it.
                driver.terminate()
                await connection.invalidate()
                raise

    async def _connect(self, seconds: float) -> Any:
        async with patient(seconds):
            connection = await self._source.raw_connection()
        driver: Any = connection.driver_connection
        connection.detach()
        driver.add_termination_listener(self._terminated)
        return driver

    def _terminated(self, driver: Any) -> None:
        if driver is self._driver:
            self._driver = None
            self._lost()

    def _drop(self) -> None:
        driver, self._driver = self._driver, None
        if driver is not None:
            driver.terminate()

    async def _read_other(self) -> Reading:
        """A database without replication: reachable or not."""
        at = self._clock()
        async with patient(self._timeout), self._source.connect() as connection:
            await connection.exec_driver_sql("SELECT 1")
        return Reading(role=Role.PRIMARY, system=0, timeline=0, lsn=LSN(0), at=at)


async def _goodbye(driver: Any, seconds: float) -> None:
    with suppress(Exception), Patience(seconds, driver.terminate):
        await driver.close()
