"""Why a probe failed: whether the server has answered at all, and in which words."""

from collections.abc import Iterable

from lagwise._decide.failure import Cause, Kind
from lagwise._decide.words import in_words

_OURS = {Kind.OPTION, Kind.DRIVER, Kind.SETUP, Kind.TLS, Kind.HOST}
BUSY = {Kind.FULL, Kind.STARTING}


def answered(cause: Cause) -> bool:
    """Whether PostgreSQL itself has said no: those whom it has let in may go on."""
    return cause.sqlstate is not None and cause.kind not in {Kind.LOST, Kind.STOPPING}


def silent(cause: Cause) -> bool:
    """Whether the node has not answered. A mistake in this process, or a resolver's failure, is no silence of it.

    A refused TCP connection is none of PostgreSQL's answers: a network refuses in the name of a host that is gone,
    while the connections to it hang.
    """
    return not answered(cause) and cause.kind not in _OURS


def words_of(error: BaseException, cause: Cause, hide: Iterable[str]) -> str:
    """What a log may say of it: class, SQLSTATE and the driver's own words, less hosts, ports and secrets."""
    original = getattr(error, "orig", None) or error
    if cause.sqlstate is not None and getattr(original.__cause__, "sqlstate", None) == cause.sqlstate:
        original = original.__cause__
    said = original.strerror if isinstance(original, OSError) and original.strerror else str(original)
    return in_words(cause.error, cause.sqlstate, said, hide)
