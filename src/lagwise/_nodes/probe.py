"""All the SQL that monitors a node, and how it is asked."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from lagwise._decide.lsn import LSN
from lagwise._decide.view import Reading, Role
from lagwise._pools.patience import Patience

# CASE keeps each function on the side where it is allowed: pg_current_wal_insert_lsn() raises 55000 on a
# standby, pg_last_wal_replay_lsn() is NULL on a primary that never recovered.
# https://www.postgresql.org/docs/current/functions-admin.html#FUNCTIONS-RECOVERY-CONTROL
# The timeline of a standby is what its receiver follows; without a receiver, or without the right to see it
# (pg_read_all_stats), the control file's, which is lower for a while after a failover, never higher: see Reading.after.
# Every name and operator is qualified: a role's search_path may lead to names of the application's own.
_PRIMARY_LSN = "pg_catalog.pg_current_wal_insert_lsn()"
_PRIMARY_TIMELINE = f"""
    pg_catalog.concat('x', pg_catalog.substr(pg_catalog.pg_walfile_name({_PRIMARY_LSN}), 1, 8))
    ::pg_catalog.bit(32)::pg_catalog.int4"""
_REPLICA_TIMELINE = """
    coalesce((SELECT received_tli FROM pg_catalog.pg_stat_wal_receiver),
             (SELECT greatest(c.timeline_id, r.min_recovery_end_timeline)
              FROM pg_catalog.pg_control_checkpoint() c, pg_catalog.pg_control_recovery() r))"""
_PAGE = "pg_catalog.current_setting('wal_block_size')::pg_catalog.int4"
_SEGMENT = "pg_catalog.pg_size_bytes(pg_catalog.current_setting('wal_segment_size'))"
_DATABASE = """(SELECT oid FROM pg_catalog.pg_database
        WHERE datname OPERATOR(pg_catalog.=) pg_catalog.current_database())"""
# How the monitor's questions begin. The text of the latest one tells its connections from others, and is shown to the
# role that they connect as: https://www.postgresql.org/docs/current/monitoring-stats.html#MONITORING-PG-STAT-ACTIVITY-VIEW
_MARK = "/* lagwise: monitor */"
# A transaction number is the cheapest request that makes a server flush its log, 0.2 s later (wal_writer_delay).
# Reads on a primary write hint bits to the log, where checksums or wal_log_hints are on, and on an idle one
# nothing flushes them for up to 15 s: its replicas would look that stale, although they miss nothing.
FLUSH = f"{_MARK} SELECT pg_catalog.txid_current()"
_READ = f"""
SELECT in_recovery,
       (SELECT system_identifier FROM pg_catalog.pg_control_system()) AS system,
       CASE WHEN in_recovery THEN pg_catalog.pg_last_wal_replay_lsn() ELSE {_PRIMARY_LSN} END AS lsn,
       CASE WHEN in_recovery THEN {_REPLICA_TIMELINE} ELSE {_PRIMARY_TIMELINE} END AS timeline,
       CASE WHEN in_recovery THEN NULL ELSE pg_catalog.pg_current_wal_flush_lsn() END AS flushed,
       {_PAGE} AS page, {_SEGMENT} AS segment,
       pg_catalog.pg_postmaster_start_time() AS started,
       pg_catalog.current_setting('port')::pg_catalog.int4 AS port,
       {_DATABASE}::pg_catalog.int8 AS database,
       %s AS processes
FROM (SELECT pg_catalog.pg_is_in_recovery() AS in_recovery OFFSET 0) AS role
"""
# A Router with no replicas does not ask about replay, nor tell which server and which database this is.
_READ_ALONE = f"""
SELECT in_recovery,
       (SELECT system_identifier FROM pg_catalog.pg_control_system()) AS system,
       CASE WHEN in_recovery THEN '0/0'::pg_catalog.pg_lsn ELSE {_PRIMARY_LSN} END AS lsn,
       CASE WHEN in_recovery THEN 0 ELSE {_PRIMARY_TIMELINE} END AS timeline,
       NULL::pg_catalog.pg_lsn AS flushed,
       {_PAGE} AS page, {_SEGMENT} AS segment,
       NULL::pg_catalog.timestamptz AS started,
       0 AS port, 0 AS database,
       %s AS processes
FROM (SELECT pg_catalog.pg_is_in_recovery() AS in_recovery OFFSET 0) AS role
"""
_COUNT = f"""
       CASE WHEN in_recovery THEN 0 ELSE
           (SELECT pg_catalog.count(*) FROM pg_catalog.pg_stat_get_activity(NULL::pg_catalog.int4) AS a
            WHERE pg_catalog.starts_with(a.query, '{_MARK}') AND a.datid OPERATOR(pg_catalog.=) {_DATABASE}) END"""
# Behind a pooler in transaction mode nothing can be set beforehand.
_BEGIN, _END = "BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY", "ROLLBACK"
_EPOCH, _MICROSECOND = datetime(1970, 1, 1, tzinfo=UTC), timedelta(microseconds=1)

_NEVER = 1e6  # seconds


async def ask(
    driver: Any,
    *,
    alone: bool,
    patience: Patience,
    clock: Callable[[], float],
    framed: bool = False,
    monitor: bool = False,
    count: bool = False,
) -> Reading:
    """Ask a server, over this asyncpg connection, for its identity and its position; `alone`: not for replay.

    `framed`: in a transaction of its own. The answer says which server has given it, and that is all that is believed.
    `monitor`: the connection counts as a process's that watches this server; `count`: a primary tells how many do.

    When `patience` runs out the connection is terminated: a cancellation would wait for a server that may not
    answer. Raises `TimeoutError` then, else whatever the driver raises.
    """
    at = clock()
    if framed:
        await answer(driver, driver.execute, _BEGIN, patience=patience)
    question = (_READ_ALONE if alone else _READ) % (_COUNT if count else "0")
    row = await answer(driver, driver.fetchrow, _MARK + question if monitor else question, patience=patience)
    if framed:
        await answer(driver, driver.execute, _END, patience=patience)
    role = Role.REPLICA if row["in_recovery"] else Role.PRIMARY
    lsn, started = LSN(row["lsn"] or 0), row["started"]
    return Reading(
        role=role,
        system=row["system"] % (1 << 64),  # bigint in SQL, unsigned in the control file
        timeline=row["timeline"],
        lsn=lsn if role is Role.REPLICA else lsn.normalised(row["page"], row["segment"]),
        at=at,
        flushed=LSN(row["flushed"] or 0),
        started=0 if started is None else (started - _EPOCH) // _MICROSECOND,
        port=row["port"],
        database=row["database"] or 0,
        processes=row["processes"],
    )


async def answer(driver: Any, call: Callable[..., Any], sql: str, *, patience: Patience) -> Any:
    """What this method of an asyncpg connection answers; `TimeoutError` where `patience` runs out first."""
    patience.end_with(driver.terminate)
    try:
        # The driver's own time-out would measure how busy this process is, and be the application's by default.
        return await call(sql, timeout=_NEVER)
    except Exception:
        if patience.ran_out:
            # Not "from error": that the connection was ended here is no cause, and would be told as one.
            raise TimeoutError from None
        raise
