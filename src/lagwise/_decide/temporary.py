"""Statements that make what lasts as long as the session: temporary tables, views and sequences."""

from typing import Any

from lagwise._decide.effect import Effect

_TEMPORARY = "t"  # RELPERSISTENCE_TEMP (catalog/pg_class.h)


def temporary(statement: dict[str, Any]) -> Effect:
    """Whether a statement that makes a relation leaves it in the session; ON COMMIT DROP ends it with its transaction.

    A relation that the search path alone makes temporary is not seen.
    """
    into = statement.get("into", {})
    relations = (statement.get("relation"), into.get("rel"), statement.get("view"), statement.get("sequence"))
    made = any(isinstance(one, dict) and one.get("relpersistence") == _TEMPORARY for one in relations)
    dropped = "ONCOMMIT_DROP" in {statement.get("oncommit"), into.get("onCommit")}
    return Effect.TOUCHES if made and not dropped else Effect.NOTHING
