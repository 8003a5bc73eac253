"""Questions about a session and its statements, and the errors of sessions that cannot go on."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy.orm import Session, SessionTransactionOrigin
from sqlalchemy.sql import Executable

from lagwise.errors import NoPrimary, NoReplica, RoutingError

_STREAMING = frozenset({"stream_results", "yield_per"})


def used_after_its_end() -> RoutingError:
    return RoutingError(
        "this session ended with its block; in FastAPI a dependency's session ends before the response starts. "
        "A stream or a background task opens its own: `async with db.read() as session`, "
        "`async with db.write.begin() as session`."
    )


def in_block(session: Session) -> bool:
    """Whether the application itself has begun the transaction: changing the node would break its block."""
    begun = session.get_transaction()
    # A savepoint is the application's, although the transaction around it may have begun by itself.
    return begun is not None and (
        begun.origin is not SessionTransactionOrigin.AUTOBEGIN or session.in_nested_transaction()
    )


def end_transaction(session: Session) -> None:
    """End the transaction without `commit()` or `rollback()`, which would flush and expire objects."""
    begun = session.get_transaction()
    if begun is not None:
        begun.close()


def names_a_bind(bind_arguments: Mapping[str, Any] | None = None, *_rest: Any, **_options: Any) -> bool:
    """Whether these arguments of `Session.connection` choose the engine themselves."""
    return "bind" in (bind_arguments or ())


def wants_stream(statement: Any, options: Mapping[str, Any] | None) -> bool:
    """Whether this statement wants a server-side cursor, which lives in a transaction."""
    own = statement.get_execution_options() if isinstance(statement, Executable) else ()
    if _STREAMING.isdisjoint(own) and _STREAMING.isdisjoint(options or ()):
        return False
    return any(each and each.get(name) for each in (options, own) for name in _STREAMING)


def left_behind(node: str) -> NoReplica:
    """The error of a session that cannot move to a node that has its client's own write."""
    return NoReplica(
        f"this read session holds on to its connection to {node} (a transaction, a setting, a cursor), "
        "which does not show the client's own write. Read what was just written in a new session, or with "
        "db.read(primary=True)."
    )


def lost_twice(node: str, error: Exception) -> NoPrimary:
    """The error of a read that failed twice on one node, while no other node may serve it."""
    return NoPrimary(
        f"the connection to {node} was lost twice in one read ({type(error).__name__}), "
        "and no other node may serve it. Retry."
    )
