"""The engine options of an application, and which of them hold for which engine."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy.pool import QueuePool

ISOLATION = ("isolation_level", "postgresql_readonly", "postgresql_deferrable")
"""The options that a transaction's beginning depends on, and for reads the fence."""
# Measured with asyncpg: SQLAlchemy's default of 5 + 10 opens and closes a connection per request under load.
DEFAULTS: Mapping[str, Any] = {"pool_size": 20, "max_overflow": 0}


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
