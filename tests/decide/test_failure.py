"""What a failure means: the table of what PostgreSQL answers, and how a driver's trouble arrives."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lagwise._decide.failure import Failure, classify

READ_ONLY_ERRORS = [
    ("25006", "cannot execute INSERT in a read-only transaction"),
    ("25006", "cannot execute nextval() in a read-only transaction"),
    ("25006", "cannot execute LISTEN during recovery"),
    ("0A000", "cannot access temporary or unlogged relations during recovery"),
    ("0A000", "cannot use serializable mode in a hot standby"),
    ("0A000", "cannot set transaction read-write mode during recovery"),
    ("XX000", "cannot assign OIDs during recovery"),
]


@pytest.mark.parametrize(("sqlstate", "text"), READ_ONLY_ERRORS)
def test_what_a_replica_refuses_is_a_write(sqlstate: str, text: str) -> None:
    """INSERT, nextval, unlogged tables, SERIALIZABLE, large objects: one hint, and no other replica is asked."""
    failure = classify(sqlstate, text, disconnected=False, on_replica=True)
    assert failure is Failure.READ_ONLY
    assert not failure.elsewhere


def test_the_primary_refuses_a_write_in_a_read_session_with_the_same_word() -> None:
    """A read that landed on the primary fails as it would have on a replica."""
    text = "cannot execute INSERT in a read-only transaction"
    assert Failure.READ_ONLY is classify("25006", text, disconnected=False, on_replica=False)


@pytest.mark.parametrize(
    ("sqlstate", "text", "on_replica"),
    [
        ("0A000", "cannot access temporary or unlogged relations during recovery", False),
        ("XX000", "cache lookup failed for relation 16384", True),
        ("XX000", "cannot assign OIDs during recovery", False),
    ],
)
def test_the_same_codes_mean_other_things_elsewhere(sqlstate: str, text: str, on_replica: bool) -> None:
    """0A000 and XX000 are a replica's refusal only on a replica, and only when the text speaks of recovery."""
    assert Failure.CALLER is classify(sqlstate, text, disconnected=False, on_replica=on_replica)


@pytest.mark.parametrize("sqlstate", ["40001", "40P01"], ids=["conflict", "buffer deadlock with replay"])
@pytest.mark.parametrize("disconnected", [False, True], ids=["running", "idle in transaction"])
def test_a_recovery_conflict_is_retried_elsewhere(sqlstate: str, disconnected: bool) -> None:
    """40001 and 40P01 from a replica are replay's doing, whether the connection survives it or not."""
    text = "canceling statement due to conflict with recovery"
    failure = classify(sqlstate, text, disconnected=disconnected, on_replica=True)
    assert failure is Failure.CONFLICT
    assert failure.elsewhere


@pytest.mark.parametrize(
    ("sqlstate", "text"),
    [("40001", "could not serialize access due to concurrent update"), ("40P01", "deadlock detected")],
)
@pytest.mark.parametrize("disconnected", [False, True])
def test_a_serialization_failure_on_the_primary_is_the_callers(sqlstate: str, text: str, disconnected: bool) -> None:
    """So is a deadlock. Only the caller knows what it had read before, so only the caller can retry."""
    failure = classify(sqlstate, text, disconnected=disconnected, on_replica=False)
    assert failure is Failure.CALLER
    assert not failure.elsewhere


@pytest.mark.parametrize(
    ("sqlstate", "text", "disconnected", "expected"),
    [
        ("57P01", "terminating connection due to administrator command", True, Failure.LOST),
        ("57P01", "terminating connection due to administrator command", False, Failure.LOST),
        ("57P02", "terminating connection because of crash of another server process", True, Failure.LOST),
        ("57P03", "the database system is starting up", False, Failure.BUSY),
        ("53300", "sorry, too many clients already", False, Failure.BUSY),
        ("08003", "connection was closed in the middle of operation", True, Failure.LOST),
        ("08006", "connection failure", False, Failure.LOST),
        (None, "connection is closed", True, Failure.LOST),
        (None, "", True, Failure.LOST),
        (None, "[Errno 111] Connect call failed", True, Failure.LOST),
        ("25P01", "DECLARE CURSOR can only be used in transaction blocks", False, Failure.NO_TRANSACTION),
        ("55000", 'currval of sequence "s" is not yet defined in this session', False, Failure.CALLER),
        ("0A000", "cached plan must not change result type", False, Failure.STALE_PLAN),
        ("26000", 'prepared statement "__asyncpg_stmt_1a__" does not exist', False, Failure.FORGOTTEN),
        ("26000", "unnamed prepared statement does not exist", False, Failure.FORGOTTEN),
        ("26000", 'prepared statement "mine" does not exist', False, Failure.CALLER),
        ("22012", "division by zero", False, Failure.CALLER),
        ("57014", "canceling statement due to statement timeout", False, Failure.CALLER),
        ("23505", "duplicate key value violates unique constraint", False, Failure.CALLER),
        (None, "", False, Failure.CALLER),
        ("", "", False, Failure.CALLER),
    ],
)
@pytest.mark.parametrize("on_replica", [False, True], ids=["primary", "replica"])
def test_other_failures_mean_the_same_everywhere(
    sqlstate: str | None, text: str, disconnected: bool, expected: Failure, on_replica: bool
) -> None:
    """Shutdown and crash are a lost node, starting up and too many connections a busy one, the rest the caller's."""
    assert expected is classify(sqlstate, text, disconnected=disconnected, on_replica=on_replica)


def test_a_timeout_of_the_driver_is_told_from_a_lost_connection() -> None:
    """The driver gave up waiting: the statement may be the slow one, not the node."""
    for on_replica in (True, False):
        failure = classify(None, "", disconnected=True, timed_out=True, on_replica=on_replica)
        assert failure is Failure.TIMEOUT
    text = "canceling statement due to conflict with recovery"
    assert classify("40001", text, disconnected=False, timed_out=True, on_replica=True) is Failure.CONFLICT


def test_another_node_is_tried_where_it_may_know_better() -> None:
    """A write, a missing transaction and the caller's own mistakes would fail everywhere."""
    elsewhere = {failure for failure in Failure if failure.elsewhere}
    assert elsewhere == {
        Failure.LOST,
        Failure.CONNECT,
        Failure.TIMEOUT,
        Failure.BUSY,
        Failure.CONFLICT,
        Failure.FORGOTTEN,
    }


@given(
    st.none()
    | st.sampled_from(["40001", "40P01", "57P01"])
    | st.text("0123456789ABCDEFXP", min_size=5, max_size=5)
    | st.text(max_size=7),
    st.text() | st.sampled_from([text for _, text in READ_ONLY_ERRORS]),
    st.booleans(),
    st.booleans(),
)
def test_every_answer_has_a_meaning(sqlstate: str | None, text: str, disconnected: bool, on_replica: bool) -> None:
    """Any code and any text is classified, and a lost connection is never called the caller's mistake."""
    failure = classify(sqlstate, text, disconnected=disconnected, on_replica=on_replica)
    if disconnected and failure is Failure.CALLER:
        assert sqlstate in {"40001", "40P01"}
        assert not on_replica
    if failure is Failure.CONFLICT:
        assert on_replica


@pytest.mark.parametrize("sqlstate", ["42P01", "42703", "42883", "42704", "3F000"])
def test_what_a_replica_does_not_have_yet_the_primary_may(sqlstate: str) -> None:
    """A table made a moment ago is on the primary; there, and with another error, it is the caller's mistake."""
    said = 'relation "new" does not exist'
    assert classify(sqlstate, said, disconnected=False, on_replica=True) is Failure.NOT_THERE_YET
    assert classify(sqlstate, said, disconnected=False, on_replica=False) is Failure.CALLER
