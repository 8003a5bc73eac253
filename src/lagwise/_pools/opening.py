"""Opens the driver's connections: with the settings they start with, and an eye on a pooler in between."""

import re
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

import asyncpg  # type: ignore[import-untyped]

from lagwise._pools.driver import ParameterRefused
from lagwise._pools.guarding import GuardingDriver
from lagwise._pools.placing import PlacingDriver
from lagwise._pools.pooler import Pooler
from lagwise._pools.pooling import Pooling

_PARAMETER = re.compile(r"startup parameter:? ?([\w.]{0,63})")
Connect = Callable[[], Awaitable[Any]]


class Opening:
    """Opens the connections of one pool. `settings` go into the startup packet, unless the engine has an owner."""

    def __init__(self, pooling: Pooling, settings: Mapping[str, str], *, role: str, pooler: Pooler) -> None:
        self._pooling = pooling
        self._settings = settings
        self._role = role
        self._pooler = pooler
        self._refused = False
        self.started: WeakSet[Any] = WeakSet()
        """The connections that have begun with these settings."""
        self._again: WeakKeyDictionary[Any, Connect] = WeakKeyDictionary()
        self._looked: WeakSet[Any] = WeakSet()

    async def connect(self, create: Callable[..., Any] | None, owned: bool, *args: Any, **kw: Any) -> Any:
        """A new connection of asyncpg's.

        Raises:
            TransactionPooler: a pooler in transaction mode is in between, and `pooling` says otherwise.
            ParameterRefused: a pooler refuses what the application has set in `server_settings`.
        """
        if create is None:
            create = asyncpg.connect
            if not self._pooling.keeps:
                kw.setdefault("connection_class", GuardingDriver)
            elif self._role == "writing":
                kw.setdefault("connection_class", PlacingDriver)
        if owned or self._refused or not self._settings:
            return await self._plain(partial(create, *args, **kw))
        settings = {**(kw.get("server_settings") or {}), **self._settings}
        connect = partial(create, *args, **{**kw, "server_settings": settings})
        try:
            driver = await connect()
        except asyncpg.PostgresError as error:
            # A pooler in between may refuse startup parameters that it does not know: from now on SET is used.
            if _parameter(error) is None:
                raise
            self._refused = True
            return await self._plain(partial(create, *args, **kw))
        self.started.add(driver)
        return await self._look(driver, connect)

    async def check(self, driver: Any, pid: int | None = None) -> None:
        """Raise `TransactionPooler` where this connection shares its server processes; `pid` is the present one."""
        if self._pooling.keeps and driver not in self._looked:
            await self._pooler.check(driver, self._again.pop(driver, None), pid)
            self._looked.add(driver)

    async def _plain(self, connect: Connect) -> Any:
        try:
            driver = await connect()
        except asyncpg.PostgresError as error:
            if (name := _parameter(error)) is None:
                raise
            raise ParameterRefused(f"a pooler refuses the startup parameter {name}") from None
        return await self._look(driver, connect)

    async def _look(self, driver: Any, connect: Connect) -> Any:
        """Look for a pooler before anything is set: the monitor does always, sessions where a parameter was refused.

        For others the process number comes with the query that every new connection is asked.
        """
        if self._pooling.keeps:
            self._again[driver] = connect
        if self._role == "monitoring" or self._refused:
            try:
                await self.check(driver)
            except BaseException:
                driver.terminate()
                raise
        return driver


def _parameter(error: asyncpg.PostgresError) -> str | None:
    """The startup parameter that a pooler has refused; None for any other error."""
    found = _PARAMETER.search(str(error)) if getattr(error, "sqlstate", None) == "08P01" else None
    return found and found.group(1)
