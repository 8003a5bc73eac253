"""Why a probe failed: whether the server has answered at all, and the words for the log."""

from collections.abc import Iterable

from lagwise._decide.failure import Cause, Kind
from lagwise._decide.words import in_words

_OURS = {Kind.OPTION, Kind.DRIVER, Kind.SETUP, Kind.TLS, Kind.HOST, Kind.POOLER, Kind.PARAMETER}
BUSY = {Kind.FULL, Kind.STARTING}


def answered(cause: Cause) -> bool:
    """Whether PostgreSQL itself has refused: connections that it has accepted may go on."""
    return cause.sqlstate is not None and cause.kind not in {Kind.LOST, Kind.STOPPING}


def silent(cause: Cause) -> bool:
    """Whether the node has not answered. A mistake in this process, or a failure of the resolver, does not count.

    A refused TCP connection is not an answer of PostgreSQL: a network may refuse connections to a host that is gone,
    while older connections to that host hang.
    """
    return not answered(cause) and cause.kind not in _OURS


def words_of(error: BaseException, cause: Cause, hide: Iterable[str]) -> str:
    """The words for the log: class, SQLSTATE and the driver's own words, less hosts, ports and secrets."""
    original = getattr(error, "orig", None) or error
    if cause.sqlstate is not None and getattr(original.__cause__, "sqlstate", None) == cause.sqlstate:
        original = original.__cause__
    said = original.strerror if isinstance(original, OSError) and original.strerror else str(original)
    return in_words(cause.error, cause.sqlstate, said, hide)
