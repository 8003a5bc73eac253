"""What the doctor asks a node, in SQL, and the facts that the answers make.

Each question runs in a READ ONLY transaction of its own in which `search_path` is `pg_catalog`: no name of the
application's shadows PostgreSQL's, and a pooler in transaction mode hands it to one server. Nothing is written.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from statistics import median
from types import MappingProxyType
from typing import Any

from lagwise.cli.doctor.facts import Access, Connections, Facts, Receiver, Replay, Senders, Slot, Statements

APPLICATION = "lagwise doctor"
"""Its `application_name`, by which its own connections are left out where connections are counted."""
SAMPLES = 5
"""How many round trips are measured."""
SHOWN = 5
"""How many unlogged tables are named."""
SLOTS = 100
"""How many slots are looked at, those in trouble first."""
Question = Callable[[Any, Facts], Awaitable[Facts]]

_SETTINGS = (
    "server_version_num", "max_connections", "superuser_reserved_connections", "reserved_connections", "wal_level",
    "synchronous_commit", "synchronous_standby_names", "hot_standby_feedback", "max_standby_streaming_delay",
    "max_slot_wal_keep_size", "wal_keep_size", "recovery_min_apply_delay", "wal_receiver_timeout",
    "default_transaction_read_only",
)  # fmt: skip
# In PostgreSQL's own units, whatever was written; a setting that a version does not have is not among the answers.
_SETTINGS_SQL = "SELECT name, setting FROM pg_settings WHERE name = ANY ($1::text[])"


async def settings(driver: Any, facts: Facts) -> Facts:
    """Version and settings, as they hold for this role and this database."""
    rows = await driver.fetch(_SETTINGS_SQL, list(_SETTINGS))
    found = {row["name"]: row["setting"] for row in rows}
    database = await driver.fetchval("SELECT oid::int8 FROM pg_database WHERE datname = current_database()")
    version = int(found["server_version_num"])
    return replace(facts, version=version, settings=MappingProxyType(found), database=database)


_MONITORS = (
    "pg_is_in_recovery()", "pg_control_system()", "pg_control_checkpoint()", "pg_control_recovery()",
    "pg_current_wal_insert_lsn()", "pg_current_wal_flush_lsn()", "pg_last_wal_replay_lsn()", "pg_walfile_name(pg_lsn)",
    "pg_postmaster_start_time()", "pg_size_bytes(text)", "txid_current()",
)  # fmt: skip
_VIEWS = ("pg_stat_wal_receiver",)
# USAGE of a role means that its privileges hold without SET ROLE. A superuser has them all.
_ACCESS_SQL = """
SELECT quote_ident(current_user) AS role,
       pg_has_role(current_user, 'pg_read_all_stats', 'USAGE') AS stats,
       ARRAY(SELECT f FROM unnest($1::text[]) AS f WHERE NOT has_function_privilege(f, 'EXECUTE')) AS functions,
       ARRAY(SELECT v FROM unnest($2::text[]) AS v WHERE NOT has_table_privilege(v, 'SELECT')) AS views,
       coalesce((SELECT has_language_privilege(oid, 'USAGE') FROM pg_language WHERE lanname = 'plpgsql'), false)
         AS language
"""


async def access(driver: Any, facts: Facts) -> Facts:
    """The privileges that docs/permissions.md asks for."""
    row = await driver.fetchrow(_ACCESS_SQL, list(_MONITORS), list(_VIEWS))
    functions, views = (tuple(f"pg_catalog.{name}" for name in row[kind]) for kind in ("functions", "views"))
    found = Access(role=row["role"], stats=row["stats"], functions=functions, views=views, language=row["language"])
    return replace(facts, access=found)


async def pace(driver: Any, facts: Facts) -> Facts:
    """The round trip, and the difference of the clocks: the server's time is from the middle of the shortest trip."""
    statement = await driver.prepare("SELECT extract(epoch FROM clock_timestamp())::float8", name="")
    samples = list[tuple[float, float]]()  # how long, and by how much the server's clock is ahead
    for _ in range(SAMPLES):
        sent, began = time.time(), time.perf_counter()
        there = await statement.fetchval()
        took = time.perf_counter() - began
        samples.append((took, there - (sent + took / 2)))
    shortest, ahead = min(samples)
    return replace(facts, round_trip=median(took for took, _ in samples), clock=ahead, clock_error=shortest / 2)


# Without pg_read_all_stats the row is there, and its columns are NULL. The age of the last message is taken on the
# replica's own clock, as the receiver does.
_REPLAY_SQL = """
SELECT pg_is_wal_replay_paused() AS paused, r.pid, r.status, r.slot_name AS slot,
       extract(epoch FROM clock_timestamp() - r.last_msg_receipt_time)::float8 AS silent
FROM (SELECT) AS one LEFT JOIN pg_stat_wal_receiver AS r ON true
"""


async def replay(driver: Any, facts: Facts) -> Facts:
    """A replica's receiver, and whether replay is paused."""
    if not facts.is_replica:
        return facts
    row = await driver.fetchrow(_REPLAY_SQL)
    said = {name: row[name] for name in ("pid", "status", "slot", "silent")}
    receiver = Receiver(**said) if row["pid"] is not None else None
    return replace(facts, replay=Replay(paused=row["paused"], receiver=receiver))


# Without pg_read_all_stats `state` is NULL.
_SENDERS_SQL = """
SELECT count(*) AS every, count(*) FILTER (WHERE state = 'streaming') AS streaming,
       count(*) FILTER (WHERE state IS NULL) AS hidden
FROM pg_stat_replication
"""


async def senders(driver: Any, facts: Facts) -> Facts:
    """The replicas that a primary sends to."""
    if not facts.is_primary:
        return facts
    row = await driver.fetchrow(_SENDERS_SQL)
    return replace(facts, senders=Senders(all=row["every"], streaming=row["streaming"], hidden=row["hidden"]))


# CASE keeps each function on the side where it is allowed. Slots of a session that ends drop themselves.
_SLOTS_SQL = """
SELECT slot_name::text AS name, active, wal_status AS status, safe_wal_size AS safe,
       (CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END - restart_lsn)::int8
         AS kept
FROM pg_replication_slots WHERE NOT temporary
ORDER BY wal_status IS NOT DISTINCT FROM 'lost' DESC, wal_status IS NOT DISTINCT FROM 'unreserved' DESC, active, name
LIMIT $1
"""


async def slots(driver: Any, facts: Facts) -> Facts:
    """Replication slots, and the log that they keep."""
    rows = await driver.fetch(_SLOTS_SQL, SLOTS)
    return replace(facts, slots=tuple(Slot(**dict(row)) for row in rows))


# Clients alone count towards max_connections. Without pg_read_all_stats `backend_type` is NULL, and what is left to
# tell them by is that they have a role and a database, which walsenders and workers lack.
_CONNECTIONS_SQL = """
SELECT count(*) FILTER (WHERE mine) AS own, count(*) FILTER (WHERE NOT mine) AS others,
       (SELECT CASE WHEN rolsuper THEN -1 ELSE rolconnlimit END FROM pg_roles WHERE rolname = current_user)
         AS role_limit,
       (SELECT CASE WHEN r.rolsuper THEN -1 ELSE d.datconnlimit END FROM pg_database d, pg_roles r
        WHERE d.datname = current_database() AND r.rolname = current_user) AS database_limit
FROM (SELECT usename = current_user AND datname = current_database() AS mine FROM pg_stat_activity
      WHERE datid IS NOT NULL AND usesysid IS NOT NULL AND coalesce(backend_type, 'client backend') = 'client backend'
      AND application_name IS DISTINCT FROM $1) AS clients
"""


async def connections(driver: Any, facts: Facts) -> Facts:
    """Who is connected."""
    row = await driver.fetchrow(_CONNECTIONS_SQL, APPLICATION)
    return replace(facts, connections=Connections(**dict(row)))


_UNLOGGED_SQL = """
SELECT count(*) AS every, (array_agg(name ORDER BY name))[1:$1] AS first
FROM (SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname) AS name
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
      WHERE c.relpersistence = 'u' AND c.relkind = 'r') AS found
"""


async def unlogged(driver: Any, facts: Facts) -> Facts:
    """Tables whose rows no replica has."""
    if not facts.is_primary:
        return facts
    row = await driver.fetchrow(_UNLOGGED_SQL, SHOWN)
    return replace(facts, unlogged=tuple(row["first"] or ()), unlogged_count=row["every"])


# The view is in the schema that the extension was made in. Statements are counted there, and none is brought here: the
# text of a utility statement may hold a password.
_EXTENSION_SQL = """
SELECT quote_ident(n.nspname) FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
WHERE e.extname = 'pg_stat_statements'
"""
_STATEMENTS_SQL = r"""
SELECT count(*) FILTER (WHERE query ~* '\mFOR\s+(NO\s+KEY\s+)?(UPDATE|(KEY\s+)?SHARE)\M') AS locking,
       count(*) FILTER (WHERE query ~* '\m(nextval|setval)\s*\(') AS sequences
FROM (SELECT query FROM {schema}.pg_stat_statements
      WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND query ~* '^\s*(SELECT|WITH)\M' LIMIT 100000) AS found
"""


async def statements(driver: Any, facts: Facts) -> Facts:
    """Statements that look like reads, and write."""
    schema = await driver.fetchval(_EXTENSION_SQL) if facts.is_primary else None
    if schema is None:
        return facts
    row = await driver.fetchrow(_STATEMENTS_SQL.replace("{schema}", schema))
    return replace(facts, statements=Statements(locking=row["locking"], sequences=row["sequences"]))


POSITION = """
SELECT coalesce(pg_last_wal_replay_lsn() - '0/0'::pg_lsn, 0)::int8 AS replayed,
       extract(epoch FROM pg_last_xact_replay_timestamp())::float8 AS commit
"""
"""How far a replica is, and when, by the primary's clock, its last replayed commit was made."""

QUESTIONS: tuple[tuple[str, Question], ...] = (
    ("privileges", access),
    ("connections", connections),
    ("the round trip", pace),
    ("replay", replay),
    ("its replicas", senders),
    ("slots", slots),
    ("unlogged tables", unlogged),
    ("pg_stat_statements", statements),
)
"""After the settings and the reading, in this order; in words, for the answer that fails."""
