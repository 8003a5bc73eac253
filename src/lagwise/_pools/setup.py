"""Sets up each new connection before a session gets it, and makes the script that resets a used one."""

import asyncio
from collections.abc import Callable, Collection
from functools import partial
from time import monotonic
from typing import Any
from weakref import WeakKeyDictionary, ref

import asyncpg  # type: ignore[import-untyped]
from sqlalchemy import event
from sqlalchemy.engine import Engine
from sqlalchemy.pool import Pool

from lagwise._pools.counters import Counters
from lagwise._pools.driver import IS_CLOSED, OtherCluster, WentBack
from lagwise._pools.heard import Heard
from lagwise._pools.internals import caches_statements, forget_statements, listen_first
from lagwise._pools.keepalive import keep_alive
from lagwise._pools.opening import Opening
from lagwise._pools.pooling import RESTORES
from lagwise._pools.traffic import Expected, Traffic
from lagwise._pools.witness import attend, runs_at_checkout

# What DISCARD ALL does, but for the statements the driver itself has prepared and still counts on.
_RESET = """
CLOSE ALL; SET SESSION AUTHORIZATION DEFAULT; RESET ALL; UNLISTEN *; SELECT pg_catalog.pg_advisory_unlock_all();
DO $$ DECLARE p text; BEGIN
  FOR p IN SELECT name FROM pg_catalog.pg_prepared_statements WHERE from_sql
  LOOP EXECUTE pg_catalog.format('DEALLOCATE %I', p); END LOOP;
END $$"""
_DISCARD = "; DISCARD TEMP; DISCARD SEQUENCES"
# https://www.postgresql.org/docs/current/view-pg-settings.html; `role` is not among them.
# What listeners ran through SQLAlchemy's cursors is prepared on the server, and its text is known there.
_HOME = """
       (SELECT system_identifier FROM pg_catalog.pg_control_system()) AS system,
       CASE WHEN pg_catalog.pg_is_in_recovery()
            THEN pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_last_wal_replay_lsn(), '0/0') END AS replayed"""
_LEADS_TO = f"SELECT {_HOME}"
_MADE = rf"""
SELECT s.names, s.settings, pg_catalog.current_setting('role') AS role, session_user::text AS authorised,
       EXISTS (SELECT FROM pg_catalog.pg_prepared_statements WHERE from_sql)
       OR EXISTS (SELECT FROM pg_catalog.pg_listening_channels())
       OR CASE WHEN pg_catalog.pg_my_temp_schema() = 0 THEN false ELSE EXISTS
            (SELECT FROM pg_catalog.pg_class WHERE relnamespace = pg_catalog.pg_my_temp_schema()) END AS held,
       pg_catalog.pg_backend_pid() AS pid, {_HOME},
       ARRAY(SELECT pg_catalog.left(statement, 10000) FROM pg_catalog.pg_prepared_statements
             WHERE statement ~* '\mset' LIMIT 100) AS ran
FROM (SELECT pg_catalog.array_agg(name::text ORDER BY name) AS names,
             pg_catalog.array_agg(setting::text ORDER BY name) AS settings
      FROM pg_catalog.pg_settings WHERE source = 'session' AND name NOT LIKE 'transaction%') AS s
"""  # noqa: S608 - of constants
# Settings of an application's own have a dot in their names, and no view lists them.
_OWN = "SELECT name, pg_catalog.current_setting(name, true) AS setting FROM pg_catalog.unnest($1::text[]) AS name"


class Setup:
    """How the connections of one pool are set up: in the pool's own `connect` event.

    A connection whose set-up fails, or is cancelled, is never stored in the pool.

    Args:
        traffic: of the node; it says which cluster they must lead to, and what they keep between two transactions.
        role: "monitoring", "reading" or "writing".
        counters: count the connections that are opened.
    """

    def __init__(self, traffic: Traffic, role: str, counters: Counters | None = None) -> None:
        self._traffic = traffic
        self._pooling = pooling = traffic.pooling
        self._role = role
        settings = {"monitoring": pooling.understood, "reading": pooling.fenced}.get(role, {})
        self._settings = settings
        self._script = "; ".join(f"SET {name} = {_literal(value)}" for name, value in settings.items())
        self._writes = role == "writing"
        self._counters = counters
        self._opening = Opening(pooling, settings, role=role, pooler=traffic.pooler)
        self._heard: WeakKeyDictionary[Any, Heard] = WeakKeyDictionary()
        self._unready: WeakKeyDictionary[asyncio.Task[Any], Any] = WeakKeyDictionary()
        self._owned = False
        # Records of the pool are weak here: their `info` refers to the connection, which must not keep itself alive.
        self._records: WeakKeyDictionary[Any, ref[Any]] = WeakKeyDictionary()

    @property
    def drivers(self) -> list[Any]:
        """The driver's connections that are set up and may be open."""
        return list(self._records)

    def listen(self, engine: Engine, *, owned: bool) -> list[tuple[Any, str, Callable[..., Any]]]:
        """Set up each new connection of this engine's pool; answers the listeners, for `event.remove`.

        The application's own listeners, on the pool, the engine or the class, are called in between.
        """
        self._owned = owned and self._writes

        def connecting(_dialect: Any, _record: Any, _args: Any, kw: dict[str, Any]) -> None:
            self._pooling.prepare(kw)
            kw["async_creator_fn"] = partial(self._connect, kw.get("async_creator_fn"), owned)

        def begins(adapter: Any, _record: Any) -> None:
            self._guarded(self._begin, engine, adapter)

        def ends(adapter: Any, record: Any) -> None:
            self._guarded(self._end, engine, adapter, record)

        pool: Pool = engine.pool
        event.listen(engine, "do_connect", connecting)
        listen_first(pool, "connect", begins)
        event.listen(pool, "connect", ends)
        return [(engine, "do_connect", connecting), (pool, "connect", begins), (pool, "connect", ends)]

    def give_up(self, task: asyncio.Task[Any] | None) -> None:
        """Close the connection that this task has not finished to set up: SQLAlchemy 2.0 would leave it open."""
        driver = self._unready.pop(task, None) if task is not None else None
        if driver is not None:
            driver.terminate()

    def outdate(self, using: Collection[Any]) -> None:
        """Let no session get a connection that is set up now: the next one opens another in its place.

        Those that are not in `using` are closed: a pooler in between may keep a server process for each. In a pool
        that has an owner they may be in the owner's use.
        """
        for driver, record in list(self._records.items()):
            if (kept := record()) is not None:
                kept.info[IS_CLOSED] = _outdated
            if not self._owned and driver not in using:
                driver.terminate()

    async def _connect(self, create: Callable[..., Any] | None, owned: bool, *args: Any, **kw: Any) -> Any:
        began = monotonic()
        return self._note(await self._opening.connect(create, owned, *args, **kw), began)

    def _note(self, driver: Any, began: float | None = None) -> Any:
        if driver not in self._heard:
            self._heard[driver] = heard = Heard(monotonic() if began is None else began)
            driver.add_query_logger(heard.query)
            keep_alive(driver, self._traffic.abort_after, reads=not self._writes)
            task = asyncio.current_task()
            if task is not None:
                self._unready[task] = driver
        return driver

    def _guarded(self, step: Callable[..., None], engine: Engine, adapter: Any, *args: Any) -> None:
        try:
            step(engine, adapter, *args)
        except BaseException:
            adapter.driver_connection.terminate()
            raise

    def _begin(self, engine: Engine, adapter: Any) -> None:
        driver = self._note(adapter.driver_connection)
        if not self._pooling.keeps:
            forget_statements(adapter)
            if caches_statements(driver):
                raise ValueError('pooling="transaction": let async_creator connect with statement_cache_size=0')
        if self._role == "monitoring":
            adapter.run_async(self._opening.check)
        if not self._writes:
            self._pooling.settle(engine.dialect, adapter)
        if self._settings and driver not in self._opening.started:
            adapter.run_async(lambda driver: driver.execute(self._script))

    def _end(self, engine: Engine, adapter: Any, record: Any) -> None:
        driver, info = adapter.driver_connection, record.info
        if not self._writes:
            self._pooling.settle(engine.dialect, adapter)
        if self._settings:
            adapter.run_async(lambda driver: driver.execute(self._script))
        if self._role != "monitoring":
            info[RESTORES] = adapter.run_async(self._made if self._pooling.keeps else self._leads_home)
        info[IS_CLOSED] = driver.is_closed
        if self._role != "monitoring" and runs_at_checkout(engine):
            attend(adapter, self._traffic, reads=not self._writes)
        self._records[driver] = ref(record)
        heard = self._heard.pop(driver, None)
        if heard is not None:
            driver.remove_query_logger(heard.query)
        task = asyncio.current_task()
        if task is not None:
            self._unready.pop(task, None)
        if self._counters is not None:
            self._counters.open(monotonic(), heard.began if heard is not None else None)

    def _compare(self, found: Any, expected: Expected) -> None:
        if expected.system and found["system"] % (1 << 64) != expected.system:  # bigint in SQL, unsigned in the file
            raise OtherCluster
        if found["replayed"] is not None and found["replayed"] < expected.replayed:
            self._traffic.lost(WentBack.__name__)
            raise WentBack

    async def _leads_home(self, driver: Any) -> None:
        """Raise what `_compare` raises of a server behind a pooler; nothing is recorded, since nothing lasts."""
        expected = self._traffic.expected()
        if expected.system:
            async with driver.transaction(isolation="read_committed", readonly=True):
                self._compare(await driver.fetchrow(_LEADS_TO), expected)

    async def _made(self, driver: Any) -> str | None:
        """The script that makes a connection what it is now."""
        heard = self._heard[driver]
        expected = self._traffic.expected()  # asked before: what is shown meanwhile, the answer need not have
        try:
            made = await driver.fetchrow(_MADE)
            settings = list(zip(made["names"] or (), made["settings"] or (), strict=True))
            for text in made["ran"]:
                heard.text(text)
            if heard.names:
                own = await driver.fetch(_OWN, list(heard.names))
                settings += [(name, value) for name, value in own if value is not None]
        except asyncpg.PostgresError:
            return None  # the state is unknown: only closing the connection undoes a use
        self._compare(made, expected)
        await self._opening.check(driver, made["pid"])
        if made["held"]:
            return None
        script = _RESET + (_DISCARD if self._writes else "")
        if heard.authorises:
            script += f"; SET SESSION AUTHORIZATION {_literal(made['authorised'])}"
        if settings:
            calls = (f"pg_catalog.set_config({_literal(name)}, {_literal(value)}, false)" for name, value in settings)
            script += f"; SELECT {', '.join(calls)}"
        if made["role"] != "none":
            script += f"; SET ROLE {_literal(made['role'])}"
        return script


def _outdated() -> bool:
    return True


def _literal(text: str) -> str:
    """A literal, whatever `standard_conforming_strings` says."""
    return "E'" + text.replace("\\", "\\\\").replace("'", "''") + "'"
