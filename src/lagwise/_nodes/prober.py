"""The monitor's own connection to one node, and what else a question can be asked over when there is none."""

from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Any

from asyncpg import PostgresError  # type: ignore[import-untyped]
from sqlalchemy.ext.asyncio import AsyncEngine

from lagwise._decide.lsn import LSN
from lagwise._decide.view import Reading, Role
from lagwise._nodes.patience import Patience, patient
from lagwise._nodes.probe import FLUSH, answer, ask
from lagwise._pools.counters import checked_out, idle

_DEAD = 3  # how many idle connections of a pool may turn out to be dead before the probe has failed


class Prober:
    """Reads one node over a connection that no pool, and no request, can take away.

    Where no new connection can be had, the question is asked over one that works: the prober's own older one, or
    an idle one of the node's pools, borrowed for the length of the question. So a node that is full, and answers all
    whom it has let in, is read as it is instead of being believed or given up.

    `timeout` bounds the connect and each question, in seconds. `pooled` gives the engines of the node's pools.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        *,
        alone: bool,
        timeout: float,
        clock: Callable[[], float],
        pooled: Callable[[], Iterable[AsyncEngine]] = tuple,
    ) -> None:
        self._source = engine
        self._timeout = timeout
        self._clock = clock
        self._alone = alone
        self._pooled = pooled
        self._driver: Any = None
        self._latest: Reading | None = None
        self.lost: Callable[[], None] = lambda: None
        """Called when the server closes the connection between two probes."""
        self.doubted = False
        """Whether a connection made earlier proves nothing: a session was refused a new one. Ends with a new one."""
        self.refusal: Exception | None = None
        """Why the latest probe got no new connection, when it tried and was answered over an older one."""

    @property
    def hidden(self) -> tuple[str, ...]:
        """What must not be said of this node: its host and its password."""
        url = self._source.url
        return tuple(str(each) for each in (url.host, url.password) if each)

    @property
    def has_pooled(self) -> bool:
        """Whether any pool of the node holds a connection, idle or in use."""
        return any(idle(each.sync_engine.pool) or checked_out(each.sync_engine.pool) for each in self._pooled())

    @property
    def in_use(self) -> bool:
        """Whether sessions hold connections to the node."""
        return any(checked_out(each.sync_engine.pool) for each in self._pooled())

    async def read(self) -> Reading:
        """Ask the node who it is and where it stands.

        Raises whatever the driver raises: for a connect that failed, when nothing else answered either.
        """
        self.refusal = None
        if self._source.dialect.name != "postgresql":
            return await self._read_other()
        try:
            driver = self._driver
            if driver is not None and not self.doubted and not driver.is_closed():
                try:
                    return await self._read(driver)
                except TimeoutError:
                    raise
                except Exception:
                    if not driver.is_closed():
                        raise
                    # The connection alone may be gone, with the question on its way: the node is asked once more.
            try:
                connected = await self._connect()
            except Exception as error:
                reading = await self._read_otherwise(error)
                self.refusal = error
                return reading
            self._drop()
            self._driver, self.doubted = connected, False
            return await self._read(connected)
        except BaseException:
            self._drop()
            raise

    @property
    def connected(self) -> bool:
        """Whether there is a connection of its own, over which the node has answered."""
        return self._driver is not None and self._latest is not None

    async def run(self, call: Callable[[Any, float], Awaitable[Any]]) -> Any:
        """What `call(driver, timeout)` answers on the prober's own connection; ended after two time-outs."""
        driver = self._driver
        try:
            with Patience(2 * self._timeout, driver.terminate):
                return await call(driver, 2 * self._timeout)
        except BaseException:
            self._drop()
            raise

    async def close(self, timeout: float) -> None:  # noqa: ASYNC109 - a server's, not a task's
        """End the connection, politely where the server answers within `timeout`, seconds."""
        driver, self._driver = self._driver, None
        if driver is not None:
            with suppress(Exception), Patience(timeout, driver.terminate):
                await driver.close()

    async def _read(self, driver: Any) -> Reading:
        with Patience(self._timeout, driver.terminate) as patience:
            reading = await ask(driver, alone=self._alone, patience=patience, clock=self._clock)
        if reading.stuck_since(self._latest):
            with suppress(PostgresError), Patience(self._timeout, driver.terminate) as patience:
                await answer(driver, driver.execute, FLUSH, patience=patience)
        self._latest = reading
        return reading

    async def _read_otherwise(self, refusal: Exception) -> Reading:
        """A reading over a connection made earlier; raises `refusal` when none answers."""
        driver = self._driver
        if driver is not None and not driver.is_closed():
            try:
                return await self._read(driver)
            except Exception:
                raise refusal from None
        # A node that did not answer would keep what is asked next waiting as well.
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
                # In which state the question left the connection is unknown: no session shall have it.
                driver.terminate()
                await connection.invalidate()
                raise

    async def _connect(self) -> Any:
        async with patient(self._timeout):
            connection = await self._source.raw_connection()
        driver: Any = connection.driver_connection
        connection.detach()
        driver.add_termination_listener(self._terminated)
        return driver

    def _terminated(self, driver: Any) -> None:
        if driver is self._driver:
            self._driver = None
            self.lost()

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
