"""All the SQL that monitors a node, and the one dedicated connection it runs on."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from asyncpg import PostgresError  # type: ignore[import-untyped]
from sqlalchemy.ext.asyncio import AsyncEngine

from lagwise._decide.lsn import LSN
from lagwise._decide.view import Reading, Role

# CASE keeps each function on the side where it is allowed: pg_current_wal_insert_lsn() raises 55000 on a
# standby, pg_last_wal_replay_lsn() is NULL on a primary that never recovered.
# https://www.postgresql.org/docs/current/functions-admin.html#FUNCTIONS-RECOVERY-CONTROL
# The timeline of a standby is what its receiver follows; without a receiver, or without the right to see it
# (pg_read_all_stats), the control file's, which is lower for a while after a failover, never higher.
_PRIMARY_LSN = "pg_current_wal_insert_lsn()"
_PRIMARY_TIMELINE = f"('x' || substr(pg_walfile_name({_PRIMARY_LSN}), 1, 8))::bit(32)::int"
_REPLICA_TIMELINE = """
    coalesce((SELECT received_tli FROM pg_stat_wal_receiver),
             (SELECT greatest(c.timeline_id, r.min_recovery_end_timeline)
              FROM pg_control_checkpoint() c, pg_control_recovery() r))"""
# To assign a transaction number is the least that makes a server flush its log, 0.2 s later (wal_writer_delay).
# Reads on a primary write hint bits to the log, where checksums or wal_log_hints are on, and on an idle one nobody
# else flushes them for up to 15 s: its replicas would look as stale as that, and miss nothing.
_FLUSH = "SELECT txid_current()"
_READ = f"""
SELECT in_recovery,
       (SELECT system_identifier FROM pg_control_system()) AS system,
       CASE WHEN in_recovery THEN pg_last_wal_replay_lsn() ELSE {_PRIMARY_LSN} END AS lsn,
       CASE WHEN in_recovery THEN {_REPLICA_TIMELINE} ELSE {_PRIMARY_TIMELINE} END AS timeline,
       CASE WHEN in_recovery THEN NULL ELSE pg_current_wal_flush_lsn() END AS flushed
FROM (SELECT pg_is_in_recovery() AS in_recovery OFFSET 0) AS role
"""
# A Router with no replicas asks nothing about replay.
_READ_ALONE = f"""
SELECT in_recovery,
       (SELECT system_identifier FROM pg_control_system()) AS system,
       CASE WHEN in_recovery THEN '0/0'::pg_lsn ELSE {_PRIMARY_LSN} END AS lsn,
       CASE WHEN in_recovery THEN 0 ELSE {_PRIMARY_TIMELINE} END AS timeline,
       NULL::pg_lsn AS flushed
FROM (SELECT pg_is_in_recovery() AS in_recovery OFFSET 0) AS role
"""


async def ask(driver: Any, *, alone: bool, timeout: float, clock: Callable[[], float]) -> Reading:  # noqa: ASYNC109
    """Ask a server, over this asyncpg connection, who it is and where it stands; `alone`: not about replay.

    The driver itself bounds the wait by `timeout`, seconds: to cancel a query waits for a server that may not
    answer. Raises whatever the driver raises.
    """
    at = clock()
    row = await driver.fetchrow(_READ_ALONE if alone else _READ, timeout=timeout)
    role = Role.REPLICA if row["in_recovery"] else Role.PRIMARY
    lsn = LSN(row["lsn"] or 0)
    return Reading(
        role=role,
        system=row["system"] % (1 << 64),  # bigint in SQL, unsigned in the control file
        timeline=row["timeline"],
        lsn=lsn if role is Role.REPLICA else lsn.normalised(),
        at=at,
        flushed=LSN(row["flushed"] or 0),
    )


class Prober:
    """Reads one node over a connection that no pool, and no request, can take away.

    `timeout` bounds the connect and the query, each, in seconds.
    """

    def __init__(self, engine: AsyncEngine, *, alone: bool, timeout: float, clock: Callable[[], float]) -> None:
        self._source = engine
        self._timeout = timeout
        self._clock = clock
        self._alone = alone
        self._driver: Any = None
        self._latest: Reading | None = None
        self.lost: Callable[[], None] = lambda: None
        """Called when the server closes the connection between two probes."""

    async def read(self) -> Reading:
        """Ask the node who it is and where it stands. Raises whatever the driver raises."""
        if self._source.dialect.name != "postgresql":
            return await self._read_other()
        try:
            if self._driver is None or self._driver.is_closed():
                self._driver = await self._connect()
            reading = await ask(self._driver, alone=self._alone, timeout=self._timeout, clock=self._clock)
            if reading.stuck_since(self._latest):
                with suppress(PostgresError):
                    await self._driver.execute(_FLUSH, timeout=self._timeout)
            self._latest = reading
            return reading
        except BaseException:
            self._drop()
            raise

    async def close(self) -> None:
        """End the connection, politely where the server answers."""
        driver, self._driver = self._driver, None
        if driver is not None:
            with suppress(Exception):
                await driver.close(timeout=self._timeout)

    async def _connect(self) -> Any:
        async with asyncio.timeout(self._timeout):
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
        async with asyncio.timeout(self._timeout), self._source.connect() as connection:
            await connection.exec_driver_sql("SELECT 1")
        return Reading(role=Role.PRIMARY, system=0, timeline=0, lsn=LSN(0), at=at)
