"""COMMIT, and in the same message the query for its position: a write's token costs no round trip."""

import math
import re
import time
from typing import Any

import asyncpg  # type: ignore[import-untyped]

from lagwise._decide.lsn import LSN
from lagwise._decide.token import Position

# What asyncpg's Transaction.commit() passes to Connection.execute(), which is public. tests/pools/test_placing.py fails
# when asyncpg passes something else; lagwise then asks for the position after COMMIT.
SENT = "COMMIT;"
# One simple query: PostgreSQL runs DO once COMMIT has ended its transaction. INFO is sent to the client whatever
# client_min_messages says, and no server logs it by default. Whatever fails is silent: a standby has no such position.
# Every name is qualified, and no operator is used: a role's search_path may lead to names of the application's own.
_PLACED = """COMMIT; DO LANGUAGE plpgsql $lagwise$ BEGIN RAISE INFO '%', (
SELECT pg_catalog.concat_ws(' ', 'lagwise', pg_catalog.pg_walfile_name(i.lsn), i.lsn, c.system_identifier,
  pg_catalog.current_setting('wal_block_size'),
  pg_catalog.pg_size_bytes(pg_catalog.current_setting('wal_segment_size')))
FROM pg_catalog.pg_control_system() AS c, (SELECT pg_catalog.pg_current_wal_insert_lsn() AS lsn OFFSET 0) AS i);
EXCEPTION WHEN OTHERS THEN NULL; END $lagwise$"""
# What a server's process has once told does not change while it runs: the control file is read for the first COMMIT.
_PLACED_AGAIN = """COMMIT; DO LANGUAGE plpgsql $lagwise$ DECLARE here pg_catalog.pg_lsn; BEGIN
here := pg_catalog.pg_current_wal_insert_lsn(); RAISE INFO 'lagwise % %', pg_catalog.pg_walfile_name(here), here;
EXCEPTION WHEN OTHERS THEN NULL; END $lagwise$"""
_TOLD = re.compile(
    r"lagwise ([0-9A-F]{8})[0-9A-F]{16} ([0-9A-F]{1,8})/([0-9A-F]{1,8})"
    r"(?: (-?[0-9]{1,20}) ([0-9]{1,10}) ([0-9]{1,12}))?",
    re.ASCII,
)
# The server's errors without plpgsql, or without the privilege to use it: they come from outside any function, and
# have the name of a C function of the server's, which no locale translates.
_NO_LANGUAGE = {"42704": "ExecuteDoStmt", "42501": "aclcheck_error"}
# COMMIT may have succeeded while the query sent with it failed: cancelled, out of memory, an internal error.
_UNCERTAIN = frozenset({"42704", "42501"})
_UNCERTAIN_CLASSES = frozenset({"53", "54", "57", "58", "XX"})


class PlacingDriver(asyncpg.Connection):  # type: ignore[misc]
    """asyncpg's Connection, which can ask for the position of a commit in the message of COMMIT."""

    __slots__ = ("asks", "server", "told", "unable")

    def __init__(self, *args: Any, **kw: Any) -> None:
        super().__init__(*args, **kw)
        self.asks = self.unable = False
        self.told = ""
        # What its server has told: system identifier, and the sizes of a page and of a segment of its log, bytes.
        self.server: tuple[int, int, int] | None = None
        self.add_log_listener(self._hear)

    def execute(self, query: str, *args: Any, **kw: Any) -> Any:
        """As `asyncpg.Connection.execute`: answers what is to be awaited."""
        if self.asks and query == SENT:
            return self._commit(*args, **kw)
        return super().execute(query, *args, **kw)

    async def _commit(self, *args: Any, **kw: Any) -> str:
        try:
            await super().execute(_PLACED if self.server is None else _PLACED_AGAIN, *args, **kw)
        except asyncpg.PostgresError as error:
            if not _lacks_plpgsql(error):
                raise
            self.unable = True
        return "COMMIT"

    @staticmethod
    def ask_with_commit(driver: Any, *, one_server: bool) -> bool:
        """Let this connection's next COMMIT ask for its position; False where it cannot. Call `told_place()` then.

        `one_server`: it leads to one server for as long as it lives, and not to another one after a pooler's choice.
        """
        # To isinstance() every connection of asyncpg's is of each class: its metaclass says so for the pool's proxies.
        if PlacingDriver not in type(driver).__mro__ or driver.unable:
            return False
        driver.asks, driver.told = True, ""
        if not one_server:
            driver.server = None
        return True

    def told_place(self) -> Position | None:
        """The position that the answer to COMMIT has told, or None; later COMMITs do not ask.

        Everything committed before is at or below it.
        """
        self.asks = False
        match = _TOLD.fullmatch(self.told)
        if match is None:
            return None
        timeline, high, low, of, block, size = match.groups()
        if of is not None:
            self.server = int(of) % (1 << 64), int(block), int(size)  # bigint in SQL, unsigned in the control file
        if (server := self.server) is None:
            return None
        system, page, segment = server
        return Position(
            system=system,
            timeline=int(timeline, 16),
            lsn=LSN(int(high, 16) << 32 | int(low, 16)).normalised(page, segment),
            issued_at=math.ceil(time.time()),  # whole_seconds(), without a call for each commit
        )

    @staticmethod
    def _hear(driver: "PlacingDriver", message: Any) -> None:
        if driver.asks and message.message.startswith("lagwise "):
            driver.told = message.message


def _lacks_plpgsql(error: Any) -> bool:
    function = _NO_LANGUAGE.get(error.sqlstate or "")
    return function is not None and function == error.server_source_function and error.context is None


def may_have_succeeded(error: Any) -> bool:
    """Whether this error may come from the query sent with COMMIT, after a COMMIT that succeeded."""
    state = getattr(error, "sqlstate", None) or ""
    return state in _UNCERTAIN or state[:2] in _UNCERTAIN_CLASSES
