"""The checkers: no false alarm on a correct store, no violation missed on a broken one, stories people can read."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lagwise.testing.history import (
    SESSION,
    History,
    Operation,
    Recorder,
    Version,
    Violation,
    answers,
    check,
    monotonic_reads,
    monotonic_writes,
    no_phantoms,
    read_your_writes,
    staleness_bound,
    writes_follow_reads,
)

from .store import Store

SEEDS = st.integers(min_value=0, max_value=10**9)


def op(kind: str, version: tuple[int, int] | None, start: float, end: float | None = None, **more: Any) -> Operation:
    """An operation of ann on key a, half a second long; the value follows from the version."""
    values: dict[str, Any] = {
        "client": "ann",
        "kind": kind,
        "key": "a",
        "version": Version(*version) if version else None,
        "value": "w{}:{}".format(*version) if version else None,
        "start": start,
        "end": start + 0.5 if end is None else end,
    }
    return Operation(**{**values, **more})


def history(*operations: Operation, survived: dict[tuple[int, int], str] | None = None) -> History:
    """These operations; survivors are given as version -> key."""
    kept = None
    if survived is not None:
        kept = {Version(*version): (key, "w{}:{}".format(*version)) for version, key in survived.items()}
    return History(operations, kept)


@given(SEEDS)
@settings(max_examples=300, deadline=None)
def test_a_correct_store_is_never_accused(seed: int) -> None:
    """Whatever is lagging, concurrent, unknown or lost in failovers: no guarantee is reported as broken."""
    assert check(Store(seed, correct=True).run()) == []


@pytest.mark.parametrize(
    ("checker", "slack"),
    [
        (read_your_writes, 0.0),
        (monotonic_reads, 0.0),
        (monotonic_writes, 0.0),
        (writes_follow_reads, 0.0),
        (partial(staleness_bound, seconds=5), 5.0),
    ],
)
@given(seed=SEEDS)
@settings(max_examples=300, deadline=None)
def test_a_broken_store_is_convicted_of_exactly_what_it_did(
    checker: Callable[[History], list[Violation]], slack: float, seed: int
) -> None:
    """The operations accused are those that the definition, applied to the states themselves, says are wrong."""
    store = Store(seed, correct=False)
    seen = store.run()
    name = getattr(checker, "__name__", "staleness_bound").replace("_", "-")
    found = checker(seen)
    assert {violation.guarantee for violation in found} <= {name}
    assert {violation.operations[-1].start for violation in found} == store.broken(seen, name, slack)


@given(SEEDS)
@settings(max_examples=200, deadline=None)
def test_one_stale_read_among_many_is_found(seed: int) -> None:
    """A correct history with one stale read planted into it is no longer correct, and that read is named."""
    correct = Store(seed, correct=True).run()
    wrote = next((one for one in correct.operations if correct.acknowledged(one)), None)
    if wrote is None:
        return
    planted = Operation(client=wrote.client, kind="read", key=wrote.key, start=1e6, end=1e6 + 1, node="replica-1")
    (violation,) = check(History((*correct.operations, planted), correct.survived), [read_your_writes])
    assert violation.operations[-1] == planted


def test_concurrent_operations_are_not_in_order() -> None:
    """A read that began before the write was acknowledged may miss it."""
    assert read_your_writes(history(op("write", (1, 1), 1, 2), op("read", None, 1.9, 3))) == []
    assert len(read_your_writes(history(op("write", (1, 1), 1, 2), op("read", None, 2.1, 3)))) == 1


def test_unacknowledged_writes_bind_nobody() -> None:
    """A write of unknown outcome may be seen or not; once it was read, it has to stay."""
    lost = op("write", None, 1, outcome="unknown", value="w1:1", error="500")
    assert check(history(lost, op("read", None, 2))) == []
    assert check(history(lost, op("read", (1, 1), 2))) == []
    (violation,) = check(history(lost, op("read", (1, 1), 2), op("read", None, 3)))
    assert violation.guarantee == "monotonic-reads"


def test_failed_writes_must_not_be_seen() -> None:
    """Who was told "nothing was written" can rely on it."""
    failed = op("write", None, 1, outcome="failed", value="w1:1", error="503")
    (violation,) = check(history(failed, op("read", (1, 1), 2)))
    assert violation.guarantee == "no-phantoms"


@pytest.mark.parametrize(
    "wrote",
    [
        op("write", (1, 1), 1, value="something else"),
        op("write", (1, 1), 1, key="b"),
        op("write", (1, 2), 1, value="w1:1"),
        op("write", (1, 1), 9),
    ],
    ids=["value", "key", "version", "before it was written"],
)
def test_what_was_read_was_written(wrote: Operation) -> None:
    """A read may not show what nobody wrote, or wrote otherwise, or not yet."""
    (violation,) = no_phantoms(history(wrote, op("read", (1, 1), 2)))
    assert violation.guarantee == "no-phantoms"


def test_what_the_failover_lost_is_nobodys_duty() -> None:
    """An acknowledged write that the new primary does not have is exempt; the ones it has are not."""
    both = (op("write", (1, 1), 1), op("write", (1, 2), 2))
    assert read_your_writes(history(*both, op("read", (1, 1), 3), survived={(1, 1): "a"})) == []
    assert len(read_your_writes(history(*both, op("read", None, 3), survived={(1, 1): "a"}))) == 1


def test_a_number_given_twice_does_not_hide_a_loss() -> None:
    """After a failover another write may get the lost one's number; a read from the old branch is still stale."""
    survived = {(1, 1): "a", (2, 2): "a"}
    new = op("write", (2, 2), 3)
    zombie = op("read", (1, 9), 4, node="primary")
    assert len(read_your_writes(history(new, zombie, survived=survived))) == 1
    assert read_your_writes(history(new, op("read", (2, 2), 4), survived=survived)) == []


def test_a_write_on_the_old_primary_after_one_on_the_new_is_found() -> None:
    """Also when that write is lost afterwards: it was acknowledged on a branch that lacks the client's first."""
    first, second = op("write", (2, 5), 1), op("write", (1, 9), 2)
    (violation,) = check(history(first, second, survived={(2, 5): "a"}))
    assert violation.guarantee == "monotonic-writes"
    assert violation.operations == (first, second)


def test_one_key_tells_on_another() -> None:
    """Numbers are in commit order, so a state without an earlier write of b cannot contain the client's own of a."""
    other = op("write", (1, 1), 0, client="bob", key="b")
    own = op("write", (1, 2), 2)
    (violation,) = read_your_writes(history(other, own, op("read", None, 3, key="b")))
    assert "b had version 1:1" in str(violation)


def test_answers_are_bounded_and_errors_named() -> None:
    """A read that hangs, or fails with anything but a named error, is a violation; a write may fail."""
    slow = op("read", (1, 1), 1, 21)
    crashed = op("read", None, 1, outcome="failed", error="500")
    refused = op("read", None, 1, outcome="failed", error="503")
    cut = op("write", None, 1, outcome="unknown", error="500")
    found = answers(history(slow, crashed, refused, cut), within=10)
    assert [violation.operations for violation in found] == [(slow,), (crashed,)]


def test_a_violation_prints_as_a_story() -> None:
    """Who, what was promised, the operations in order, where each ran, and why they do not fit."""
    wrote = op("write", (1, 2), 1.25, node="primary")
    stale = op("read", (1, 1), 2, node="replica-1")
    (violation,) = read_your_writes(history(wrote, stale))
    assert str(violation) == (
        "read-your-writes broken for ann: the later read misses its own acknowledged write\n"
        "       ann     1.250 -     1.750 s  write a = w1:2 (1:2) on primary\n"
        "       ann     2.000 -     2.500 s  read  a = w1:1 (1:1) on replica-1"
    )


def test_all_guarantees_are_checked_unless_said() -> None:
    """`check` runs the session guarantees; others are given, with their bounds."""
    stale = history(op("write", (1, 1), 0), op("read", None, 9, client="bob"))
    assert {checker.__name__ for checker in SESSION} == {
        "read_your_writes",
        "monotonic_reads",
        "monotonic_writes",
        "writes_follow_reads",
        "no_phantoms",
    }
    assert check(stale) == []
    assert len(check(stale, [partial(staleness_bound, seconds=5)])) == 1
    assert check(stale, [partial(staleness_bound, seconds=9)]) == []


def test_the_recorders_clock_never_stands_still() -> None:
    """Two moments are never equal, so that before and after are always decided."""
    recorder = Recorder()
    moments = [recorder.now() for _ in range(1000)]
    assert moments == sorted(set(moments))
