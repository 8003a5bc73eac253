"""The engine options of an application, and which of them hold for which engine."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from sqlalchemy.pool import QueuePool

from lagwise._given import instead
from lagwise.policy import Policy

ISOLATION = ("isolation_level", "postgresql_readonly", "postgresql_deferrable")
"""The options that a transaction's beginning depends on, and for reads the fence."""
# Measured with asyncpg: SQLAlchemy's default of 5 + 10 opens and closes a connection per request under load.
DEFAULTS: Mapping[str, Any] = {"pool_size": 20, "max_overflow": 0}
# What each number may be, and the least. An error of SQLAlchemy's would come with the first session, or with the load.
_NUMBERS: Mapping[str, tuple[Any, int]] = {
    "pool_size": (int, 0),
    "max_overflow": (int, -1),
    "pool_timeout": (int | float, 0),
    "pool_recycle": (int | float, -1),
}


def check(options: Mapping[str, Any]) -> None:
    """Raise `ValueError` for engine options that are known to be wrong. Others are known to SQLAlchemy, when it opens.

    Dialects and pools have options of their own.
    """
    for field in fields(Policy):
        if field.name in options:
            raise ValueError(f"{field.name} belongs to the policy: give policy=Policy({field.name}=...)")
    for name, (kind, least) in _NUMBERS.items():
        value = options.get(name, least)
        if name == "pool_timeout" and value is None:  # without end
            continue
        if not isinstance(value, kind) or isinstance(value, bool) or not value >= least:
            whole = "a whole number" if kind is int else "a number of seconds"
            raise ValueError(f"{name} must be {whole}, at least {least}{instead(value)}")
    if not isinstance(options.get("poolclass", QueuePool), type):
        raise ValueError("poolclass must be a class, such as sqlalchemy.pool.NullPool")


def without_isolation(options: Mapping[str, Any]) -> dict[str, Any]:
    """Engine options for reads: an isolation level, wherever it is configured, is meant for writes."""
    execution = options.get("execution_options") or {}
    return {
        **options,
        "isolation_level": "AUTOCOMMIT",
        "execution_options": {key: value for key, value in execution.items() if key not in ISOLATION},
    }


def defaults_for(options: Mapping[str, Any]) -> Mapping[str, Any]:
    """The pool's size, where the kind of pool that is asked for has one."""
    kind = options.get("poolclass", QueuePool)
    return {} if options.get("pool") is not None or not issubclass(kind, QueuePool) else DEFAULTS
