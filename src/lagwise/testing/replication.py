"""What a cluster asks PostgreSQL for: slots, positions, pauses, and whether a replica streams."""

from __future__ import annotations

from collections.abc import Iterable

from lagwise.testing.gates import wait_until
from lagwise.testing.node import Connection, Node, slot_of
from lagwise.testing.threads import together

_PAGE, _PAGE_HEADER, _SEGMENT_HEADER = 8192, 24, 40  # bytes


async def prepare(primary: Node, database: str, names: Iterable[str]) -> None:
    """Create the application's database, and a slot for each replica to come."""
    async with primary.connect("postgres") as connection:
        if not await connection.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", database):
            await connection.execute(f'CREATE DATABASE "{database}"')
        for name in names:
            await connection.execute("SELECT pg_create_physical_replication_slot($1, true)", slot_of(name))


async def add_slot(upstream: Node, node: Node) -> None:
    """Keep WAL for ``node`` on ``upstream`` from now on, unless that is so already."""
    await upstream.execute(
        "SELECT pg_create_physical_replication_slot($1, true) "
        "WHERE NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = $1)",
        slot_of(node.name),
    )


async def streams(node: Node, timeout: float = 10.0) -> None:  # noqa: ASYNC109 - named in the error
    """Wait until the node's upstream sends to it."""
    upstream = node.upstream
    assert upstream is not None
    query = "SELECT state = 'streaming' FROM pg_stat_replication WHERE application_name = $1"
    await wait_until(
        lambda: upstream.ask(lambda connection: connection.fetchval(query, node.name)),
        timeout=timeout,
        what=f"{node.name} streams from {upstream.name}",
    )


async def position(primary: Node) -> int:
    """The position up to which the primary has written; flushed, so that a replica can reach it."""
    return await primary.ask(_written)


async def _written(connection: Connection) -> int:
    query = (
        "SELECT pg_current_wal_insert_lsn() - '0/0' AS inserted, "
        "pg_current_wal_flush_lsn() - '0/0' AS flushed, "
        "pg_size_bytes(current_setting('wal_segment_size')) AS segment"
    )
    row = await connection.fetchrow(query)
    assert row is not None
    lsn, segment = int(row["inserted"]), int(row["segment"])
    # Right after a page header there is no record yet: the last one ended where the page begins.
    if lsn % segment == _SEGMENT_HEADER or (lsn % segment >= _PAGE and lsn % _PAGE == _PAGE_HEADER):
        lsn -= lsn % _PAGE
    if row["flushed"] < lsn:
        # Written without a commit, or committed asynchronously. A commit of our own takes it along.
        await connection.execute("SET synchronous_commit = local")
        await connection.execute("SELECT pg_logical_emit_message(true, 'lagwise.testing', 'flush')")
    return lsn


async def replayed(node: Node, target: int, timeout: float) -> None:  # noqa: ASYNC109 - named in the error
    """Wait until a replica shows all up to ``target``, or is paused, or is no replica any more."""
    seen = 0
    query = (
        "SELECT CASE WHEN pg_is_in_recovery() THEN pg_is_wal_replay_paused() ELSE true END AS exempt,"
        " coalesce(pg_last_wal_replay_lsn() - '0/0', 0) AS replayed"
    )

    async def there() -> bool:
        nonlocal seen
        row = await node.ask(lambda connection: connection.fetchrow(query))
        assert row is not None
        seen = int(row["replayed"])
        return bool(row["exempt"]) or seen >= target

    try:
        await wait_until(there, timeout=timeout, what=f"{node.name} has caught up")
    except TimeoutError as late:
        message = f"{node.name} has not caught up within {timeout:g} s: {target - seen} bytes to replay."
        raise TimeoutError(message) from late


async def pause(node: Node) -> None:
    """Pause replay, and wait until it is: the function itself only asks for it."""
    await node.ask(lambda connection: connection.execute("SELECT pg_wal_replay_pause()"))
    paused = "SELECT pg_get_wal_replay_pause_state() = 'paused'"
    await wait_until(
        lambda: node.ask(lambda connection: connection.fetchval(paused)),
        what=f"replay of {node.name} is paused",
    )


async def configure(node: Node, setting: str, value: str) -> None:
    """ALTER SYSTEM and reload, and wait until the server has read it.

    The postmaster tells its children (the startup process among them) before it forks for a new session, so
    a new session that sees the change comes after all of them were told.
    """
    loaded = await node.fetchval("SELECT pg_conf_load_time()")
    await node.execute(f"ALTER SYSTEM SET {setting} = '{value}'")
    await node.execute("SELECT pg_reload_conf()")

    async def reloaded() -> bool:
        return bool(await node.fetchval("SELECT pg_conf_load_time() > $1", loaded))

    await wait_until(reloaded, what=f"{node.name} has reloaded its configuration")


async def at_once(primary: Node, replicas: Iterable[Node]) -> bool:
    """Let replicas show what they receive as soon as they have it, and say whether they show all there is already."""
    target, *shown = await together(position(primary), *map(_undelayed, replicas))
    return all(lsn >= target for lsn in shown)


async def _undelayed(node: Node) -> int:
    """End a replica's pause and its delay; the position that it showed before."""
    query = (
        "SELECT pg_wal_replay_resume(), current_setting('recovery_min_apply_delay') AS delay,"
        " coalesce(pg_last_wal_replay_lsn() - '0/0', 0) AS replayed"
    )
    row = await node.ask(lambda connection: connection.fetchrow(query))
    assert row is not None
    if row["delay"] != "0":
        await configure(node, "recovery_min_apply_delay", "0")
    return int(row["replayed"])


async def terminate(node: Node) -> int:
    """End every client session but the cluster's own, and wait, up to 5 s, until they are gone."""
    query = (
        "SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity "
        "WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
    )
    return int(await node.ask(lambda connection: connection.fetchval(query)))
