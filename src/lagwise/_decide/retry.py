"""Whether a failed read runs again, and where: one rule for sessions and connections."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from lagwise._decide.failure import Failure


@dataclass(frozen=True, slots=True)
class Attempts:
    """What one read has tried so far.

    Attributes:
        failed: the nodes it failed on; they are left out of the next choice.
        timed_out: the node on which the driver's time-out ended the statement.
        replanned: whether it ran again because the server's plan was stale.
        on_primary: whether it runs on the primary because a replica lacks what it names.
    """

    failed: frozenset[str] = frozenset()
    timed_out: str = ""
    replanned: bool = False
    on_primary: bool = False


FIRST = Attempts()


class LostTwice(Exception):  # noqa: N818 - the event, not a type of error
    """The read failed twice on one node, and no other node may serve it."""


def after_failure(
    attempts: Attempts,
    node: str,
    failure: Failure,
    *,
    sent: bool = True,
    engaged: bool = False,
    fall_back: bool = True,
    still_answers: Callable[[str], bool] = lambda _node: True,
) -> Attempts | None:
    """The attempts with which the read runs again, or None: the error goes to the caller.

    Args:
        attempts: what was tried before.
        node: where the read has failed.
        failure: how it failed.
        sent: whether the statement may have been sent; False when there was no connection yet.
        engaged: whether the caller may have acted on what the session has read before.
        fall_back: whether a read may use the primary for want of a replica.
        still_answers: whether a node has answered its latest probe.

    Raises:
        LostTwice: the read has failed on this node before, and no other node may serve it.
    """
    if engaged and (sent or failure is not Failure.CONNECT):
        return None
    if failure is Failure.STALE_PLAN:
        return None if attempts.replanned else replace(attempts, replanned=True)
    if failure is Failure.NOT_THERE_YET:
        return replace(attempts, on_primary=True) if fall_back and not attempts.on_primary else None
    if not failure.elsewhere:
        return None
    timed_out = attempts.timed_out
    if failure is Failure.TIMEOUT and sent:
        # A second time-out means a slow statement, unless the first node fails its probes too.
        if timed_out and still_answers(timed_out):
            return None
        timed_out = node
    if node in attempts.failed:
        raise LostTwice
    # What was read before may be newer than another replica; the primary is never older.
    on_primary = attempts.on_primary or engaged
    return replace(attempts, failed=attempts.failed | {node}, timed_out=timed_out, on_primary=on_primary)
