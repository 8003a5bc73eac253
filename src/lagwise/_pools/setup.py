"""Sets up each new connection before a session gets it, and makes the script that resets a used one."""

import asyncio
import re
from collections.abc import Callable, Mapping
from functools import partial
from time import monotonic
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

import asyncpg  # type: ignore[import-untyped]
from sqlalchemy import event
from sqlalchemy.engine import Engine
from sqlalchemy.pool import Pool

from lagwise._pools.counters import Counters
from lagwise._pools.driver import IS_CLOSED, OtherCluster
from lagwise._pools.internals import listen_first
from lagwise._pools.placing import PlacingDriver

# A standby runs no statement at all under SERIALIZABLE, which ALTER DATABASE or ALTER ROLE may have made the default.
UNDERSTOOD: Mapping[str, str] = {"default_transaction_isolation": "read committed"}
FENCED: Mapping[str, str] = {**UNDERSTOOD, "default_transaction_read_only": "on"}

_RESTORES = "lagwise.restores"

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
_MADE = r"""
SELECT s.names, s.settings, pg_catalog.current_setting('role') AS role, session_user::text AS authorised,
       EXISTS (SELECT FROM pg_catalog.pg_prepared_statements WHERE from_sql)
       OR EXISTS (SELECT FROM pg_catalog.pg_listening_channels())
       OR CASE WHEN pg_catalog.pg_my_temp_schema() = 0 THEN false ELSE EXISTS
            (SELECT FROM pg_catalog.pg_class WHERE relnamespace = pg_catalog.pg_my_temp_schema()) END AS held,
       (SELECT system_identifier FROM pg_catalog.pg_control_system()) AS system,
       ARRAY(SELECT pg_catalog.left(statement, 10000) FROM pg_catalog.pg_prepared_statements
             WHERE statement ~* '\mset' LIMIT 100) AS ran
FROM (SELECT pg_catalog.array_agg(name::text ORDER BY name) AS names,
             pg_catalog.array_agg(setting::text ORDER BY name) AS settings
      FROM pg_catalog.pg_settings WHERE source = 'session' AND name NOT LIKE 'transaction%') AS s
"""
# Settings of an application's own have a dot in their names, and no view lists them.
_OWN = "SELECT name, pg_catalog.current_setting(name, true) AS setting FROM pg_catalog.unnest($1::text[]) AS name"
_SETS = re.compile(r"\b(?:set|set_config)\b", re.IGNORECASE)
_DOTTED = re.compile(r"\b[a-z_][\w$]{0,62}(?:\.[a-z_][\w$]{0,62}){1,3}", re.IGNORECASE)
_MOST_TEXT, _MOST_NAMES = 10_000, 100  # of what a listener sends: characters a statement, names


def restoration(info: Mapping[Any, Any]) -> str | None:
    """The script, one round trip, that makes a connection as it was when new; None: it can only be closed.

    `info` is the connection's. What the application's `connect` listeners have set is set again; a listener's
    prepared statement, temporary table or LISTEN cannot be made again by a script.
    """
    script: str | None = info.get(_RESTORES)
    return script


class Setup:
    """How the connections of one pool are set up: in the pool's own `connect` event.

    A connection whose set-up fails, or is cancelled, is never stored in the pool.

    Args:
        settings: what to set in each connection; in its startup packet too, unless the engine has an owner.
        restores: whether sessions use these connections, and leave them to others.
        writes: whether these sessions may write.
        counters: count the connections that are opened.
        system: the identifier of the cluster that they must lead to; 0 for any.
    """

    def __init__(
        self, settings: Mapping[str, str], *, restores: bool, writes: bool = False, counters: Counters | None = None,
        system: Callable[[], int] = lambda: 0,
    ) -> None:  # fmt: skip
        self._settings = settings
        self._script = "; ".join(f"SET {name} = {_literal(value)}" for name, value in settings.items())
        self._restores = restores
        self._writes = writes
        self._counters = counters
        self._system = system
        self._refused = False
        self._started: WeakSet[Any] = WeakSet()
        self._heard: WeakKeyDictionary[Any, _Heard] = WeakKeyDictionary()
        self._unready: WeakKeyDictionary[asyncio.Task[Any], Any] = WeakKeyDictionary()
        self.drivers: WeakSet[Any] = WeakSet()
        """The driver's connections that are set up and may be open."""

    def listen(self, engine: Engine, *, owned: bool) -> list[tuple[Any, str, Callable[..., Any]]]:
        """Set up each new connection of this engine's pool; answers the listeners, for `event.remove`.

        The application's own listeners, on the pool, the engine or the class, are called in between.
        """

        def connecting(_dialect: Any, _record: Any, _args: Any, kw: dict[str, Any]) -> None:
            kw["async_creator_fn"] = partial(self._connect, kw.get("async_creator_fn"), owned)

        def begins(adapter: Any, _record: Any) -> None:
            self._guarded(self._begin, engine, adapter)

        def ends(adapter: Any, record: Any) -> None:
            self._guarded(self._end, engine, adapter, record.info)

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

    async def _connect(self, create: Callable[..., Any] | None, owned: bool, *args: Any, **kw: Any) -> Any:
        if create is None:
            create = asyncpg.connect
            if self._writes:
                kw.setdefault("connection_class", PlacingDriver)
        if owned or self._refused or not self._settings:
            return self._note(await create(*args, **kw))
        with_settings = {**kw, "server_settings": {**(kw.get("server_settings") or {}), **self._settings}}
        try:
            driver = await create(*args, **with_settings)
        except asyncpg.PostgresError as error:
            # A pooler in between may refuse startup parameters that it does not know: from now on SET is used.
            if getattr(error, "sqlstate", None) != "08P01" or "startup parameter" not in str(error):
                raise
            self._refused = True
            return self._note(await create(*args, **kw))
        self._started.add(driver)
        return self._note(driver)

    def _note(self, driver: Any) -> Any:
        if driver not in self._heard:
            self._heard[driver] = heard = _Heard()
            driver.add_query_logger(heard.query)
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
        if self._settings:
            autocommit(engine.dialect, adapter)
            if driver not in self._started:
                adapter.run_async(lambda driver: driver.execute(self._script))

    def _end(self, engine: Engine, adapter: Any, info: dict[Any, Any]) -> None:
        driver = adapter.driver_connection
        if self._settings:
            autocommit(engine.dialect, adapter)
            adapter.run_async(lambda driver: driver.execute(self._script))
        if self._restores:
            info[_RESTORES] = adapter.run_async(self._made)
        info[IS_CLOSED] = driver.is_closed
        heard = self._heard.pop(driver, None)
        if heard is not None:
            driver.remove_query_logger(heard.query)
        task = asyncio.current_task()
        if task is not None:
            self._unready.pop(task, None)
        self.drivers.add(driver)
        if self._counters is not None:
            self._counters.open(monotonic())

    async def _made(self, driver: Any) -> str | None:
        """The script that makes a connection what it is now."""
        heard = self._heard[driver]
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
        expected = self._system()
        if expected and made["system"] % (1 << 64) != expected:  # bigint in SQL, unsigned in the control file
            raise OtherCluster
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


def autocommit(dialect: Any, adapter: Any) -> None:
    """Let a connection's statements run by themselves. Nothing is sent, unless a listener left a transaction open.

    That transaction is committed, not rolled back: the listener's settings are meant to stay, and SQLAlchemy begins a
    transaction for each cursor.
    """
    adapter.commit()
    dialect.set_isolation_level(adapter, "AUTOCOMMIT")
    dialect.set_readonly(adapter, False)


class _Heard:
    """The statements that the application's listeners send while they set a connection up."""

    def __init__(self) -> None:
        self.names: dict[str, None] = {}
        """Names that may be settings of the application's own."""
        self.authorises = False

    def query(self, query: Any) -> None:
        """A query that the driver has run: asyncpg's `LoggedQuery`."""
        self.text(" ".join((query.query, *(arg for arg in query.args or () if isinstance(arg, str)))))

    def text(self, sent: str) -> None:
        """Find the names in what was sent."""
        sent = sent[:_MOST_TEXT].replace('"', "")
        if _SETS.search(sent):
            self.authorises = self.authorises or "session authorization" in " ".join(sent.lower().split())
            for name in _DOTTED.findall(sent):
                if len(self.names) < _MOST_NAMES and not name.startswith("pg_catalog."):
                    self.names[name] = None


def _literal(text: str) -> str:
    """A literal, whatever `standard_conforming_strings` says."""
    return "E'" + text.replace("\\", "\\\\").replace("'", "''") + "'"
