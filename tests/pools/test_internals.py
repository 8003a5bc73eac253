"""Undocumented names of SQLAlchemy and asyncpg: a new version without one of them fails here, by its name."""

import re
from collections.abc import Callable
from inspect import iscoroutinefunction, signature
from pathlib import Path
from typing import Any

import pytest
from asyncpg.connect_utils import _ClientConfiguration as ClientConfiguration  # type: ignore[import-untyped]
from asyncpg.connection import Connection as Driver  # type: ignore[import-untyped]
from sqlalchemy.dialects.postgresql.asyncpg import AsyncAdapt_asyncpg_connection as Adapter
from sqlalchemy.engine import Engine
from sqlalchemy.engine.base import OptionEngine
from sqlalchemy.event import registry
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import Pool, QueuePool
from sqlalchemy.pool.base import _ConnectionFairy

import lagwise
from lagwise._pools import internals


@pytest.fixture(scope="module")
def engine() -> Engine:
    """An engine that never connects."""
    return create_async_engine("postgresql+asyncpg://nobody@localhost/none", isolation_level="SERIALIZABLE").sync_engine


NAMES: dict[str, Callable[[Any], object]] = {
    "QueuePool._max_overflow": lambda engine: isinstance(engine.pool._max_overflow, int),
    "OptionEngine._proxied": lambda engine: OptionEngine(engine, {})._proxied is engine,
    "Engine._has_events": lambda engine: engine._has_events is False and Engine._has_events is False,
    "Engine._execution_options": lambda engine: engine._execution_options == engine.get_execution_options(),
    "Dialect._builtin_onconnect": lambda engine: engine.dialect._builtin_onconnect().__code__,
    "dispatch.connect.listeners": lambda engine: len(engine.pool.dispatch.connect.listeners) >= 3,
    "registry._collection_to_key": lambda engine: engine.pool.dispatch.connect.ref in registry._collection_to_key,
    "registry._key_to_collection": lambda _: isinstance(registry._key_to_collection, dict),
    "asyncpg.Connection._config": lambda _: (
        "_config" in Driver.__slots__ and "command_timeout" in ClientConfiguration._fields
    ),
    "pool connection._counter": lambda _: "_counter" in _ConnectionFairy.__slots__,
    "pool connection._close_special": lambda _: (
        [*signature(_ConnectionFairy._close_special).parameters] == ["self", "transaction_reset"]
    ),
    "asyncpg.Connection._pool_release_ctr": lambda _: "_pool_release_ctr" in Driver.__slots__,
    "asyncpg.Connection._transport": lambda _: "_transport" in Driver.__slots__,
    "asyncpg.Connection._stmt_cache_enabled": lambda _: "_stmt_cache_enabled" in Driver.__slots__,
    "asyncpg.Connection._introspect_types": lambda _: iscoroutinefunction(Driver._introspect_types),
    "asyncpg.Connection._get_statement": lambda _: "named" in signature(Driver._get_statement).parameters,
    "the adapter's cursors": lambda _: (
        [*signature(internals.Adapter.cursor).parameters] == ["self", "server_side"]
        and [*signature(internals.Cursor).parameters] == ["adapt_connection"]
        and issubclass(internals.StreamingCursor, internals.Cursor)
    ),
    "adapter._execute_mutex": lambda _: any("_execute_mutex" in each.__dict__ for each in Adapter.__mro__),
    "adapter._prepared_statement_cache": lambda _: "_prepared_statement_cache" in Adapter.__slots__,
    "adapter._prepared_statement_name_func": lambda _: "_prepared_statement_name_func" in Adapter.__slots__,
}


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_still_there(engine: Engine, name: str) -> None:
    """Each does what it is used for."""
    assert NAMES[name](engine)


def test_the_isolation_level_for_writes_is_found(engine: Engine) -> None:
    """The listener that sets it is not in a pool for reads, and still in the engine's own."""
    own = len(engine.pool.dispatch.connect)
    assert isinstance(engine.pool, QueuePool)
    made: Pool = internals.pool_like(engine.pool, engine.dialect)
    assert (len(made.dispatch.connect), len(engine.pool.dispatch.connect)) == (own - 1, own)


def test_no_other_module_uses_one() -> None:
    """Private names of other libraries stay inside the one module that explains them."""
    house = Path(lagwise.__file__).parent / "_pools"
    names = {name.rpartition(".")[2] for name in NAMES if "._" in name}
    private = re.compile(rf"\.(?:{'|'.join(names)})\b")
    using = {path.name for path in house.rglob("*.py") if private.search(path.read_text())}
    assert using == {"internals.py"}
