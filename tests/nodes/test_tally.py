"""The tally: what events come to, in numbers; it grows by fixed words and the names of nodes, and no further."""

import gc
import math

import pytest

from lagwise import Reason, Route, events
from lagwise._client.brought import Reader
from lagwise._client.cookies import Jar
from lagwise._client.signature import Seal
from lagwise._decide.failure import Failure
from lagwise._decide.node import Standing
from lagwise._nodes.tally import LABELS, Tally
from lagwise._pools.counters import BOUNDS


def counted(*told: events.Event) -> dict[str, dict[tuple[str, ...], int]]:
    """What is counted of these events, without what is not."""
    tally = Tally()
    for event in told:
        tally(event)
    return {name: dict(getattr(tally, name)) for name in LABELS if getattr(tally, name)}


def changed(before: str | None, standing: str) -> events.NodeChanged:
    """A replica's standing changes."""
    return events.NodeChanged(node="replica-1", before=before, standing=standing)


REPLICA = Route("replica-1", Reason.CAUGHT_UP, on_replica=True)
IN_PLACE = Route("primary", Reason.NONE_CAUGHT_UP, fell_back=True)


@pytest.mark.parametrize(
    ("told", "count"),
    [
        (events.Routed(route=REPLICA, write=False), {"routes": {("replica-1", "caught-up", "read"): 1}}),
        (
            events.Routed(route=Route("primary", Reason.WRITE), write=True),
            {"routes": {("primary", "write", "write"): 1}},
        ),
        (
            events.Routed(route=REPLICA, write=False, waited=0.02),
            {"routes": {("replica-1", "caught-up", "read"): 1}, "waits": {("replica",): 1}},
        ),
        (
            events.Routed(route=IN_PLACE, write=False, waited=0.02),
            {
                "routes": {("primary", "none-caught-up", "read"): 1},
                "waits": {("primary",): 1},
                "fall_backs": {("none-caught-up",): 1},
            },
        ),
        (events.Refused(error="NoPrimary", write=True), {"refusals": {("NoPrimary", "write"): 1}}),
        (
            events.Refused(error="NoReplica", write=False, waited=0.1),
            {"refusals": {("NoReplica", "read"): 1}, "waits": {("refused",): 1}},
        ),
        (events.Retried(node="replica-1", failure=Failure.LOST), {"retries": {("replica-1", "lost"): 1}}),
        (events.PositionAsked(node="primary", found=True), {"positions": {("primary", "with-commit"): 1}}),
        (events.PositionAsked(node="primary", found=True, seconds=0.1), {"positions": {("primary", "asked"): 1}}),
        (
            events.PositionAsked(node="primary", found=True, seconds=0.1, shared=True),
            {"positions": {("primary", "shared"): 1}},
        ),
        (events.PositionAsked(node="primary", found=False, seconds=0.5), {"positions": {("primary", "unknown"): 1}}),
        (events.TokenBrought(), {"tokens_brought": {(): 1}}),
        (events.TokenIssued(), {"tokens_issued": {(): 1}}),
        (events.Promoted(node="replica-1", before="primary", timeline=2), {"promotions": {("replica-1",): 1}}),
        (events.NodeUnreachable(node="replica-1", error="X"), {}),
    ],
)
def test_each_event_is_counted_by_its_words(told: events.Event, count: dict[str, dict[tuple[str, ...], int]]) -> None:
    """Who and why; a wait by how it ended, and a fall-back by its reason as well."""
    assert counted(told) == count


def test_a_node_that_comes_for_the_first_time_does_not_come_back() -> None:
    """A Router that opens counts no returns; a replica that was evicted is counted going and coming."""
    assert counted(changed("unreachable", "in-rotation")) == {}
    went = changed("in-rotation", "unreachable"), changed("unreachable", "other-timeline")
    assert counted(*went) == {"evictions": {("replica-1", "unreachable"): 1}}
    back = changed("other-timeline", "in-rotation"), changed("unreachable", "in-rotation")
    assert counted(*went, *back)["returns"] == {("replica-1",): 1}


def ignored(text: str) -> tuple[events.Event, ...]:
    """What the middleware's reader reports of a text in the header of tokens."""
    return Reader(Seal("ours"), Jar()).read([(b"lagwise-token", text.encode("latin-1"))]).untold


def signed(secret: str, payload: str) -> str:
    """Any text, signed as a token is."""
    return Seal(secret).sealed(payload)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "word"),
    [
        (signed("theirs", "BA" + "A" * 60), "not-signed"),
        (signed("ours", "BA" + "A" * 60), "other-version"),
        (signed("ours", "!" * 64), "malformed"),
        ("ä" * 100, "malformed"),
    ],
)
def test_texts_that_are_no_tokens_are_counted_by_three_words(text: str, word: str) -> None:
    """Whatever a client sends: another's signature, a later version, no token at all; never a word of the text."""
    assert counted(*ignored(text)) == {"tokens_ignored": {(word,): 1}}


def test_the_tally_does_not_grow_beyond_words_and_nodes() -> None:
    """Ten thousand texts of strangers make one entry; every event of a node, in every order, as many as standings."""
    tally = Tally()
    for number in range(10_000):
        tally(events.TokenIgnored(why=f"anything {number}"))
    for standing in Standing:
        for _ in range(100):
            tally(changed("in-rotation", standing))
    assert dict(tally.tokens_ignored) == {("malformed",): 10_000}
    assert len(tally.evictions) == len(Standing)


def test_durations_are_in_the_bucket_that_bounds_them() -> None:
    """A bound is part of its bucket, as in Prometheus; what is beyond the last is in the one without a bound."""
    tally = Tally()
    for seconds in (0.0005, 0.001, math.nextafter(0.001, 1), 11.0):
        tally(events.Routed(route=REPLICA, write=False, waited=seconds))
    assert tally.waited.counts == (2, 1, *[0] * (len(BOUNDS) - 2), 1)
    assert tally.waited.total == pytest.approx(11.0025)
    assert sum(tally.waited.counts) == sum(tally.waits.values())


def test_what_is_counted_is_read_in_one_step() -> None:
    """Garbage is collected while the counts are read, and what that finalizes counts a new node: no reader fails."""
    tally = Tally()
    for number in range(100):
        tally(events.Retried(node=f"before-{number}", failure=Failure.LOST))

    def count(phase: str, _: dict[str, int]) -> None:
        if phase == "stop":
            tally(events.Retried(node=f"during-{len(tally.retries)}", failure=Failure.LOST))

    usual = gc.get_threshold()
    gc.callbacks.append(count)
    gc.set_threshold(1)
    try:
        read = [tally.counted("retries") for _ in range(100)]
    finally:
        gc.set_threshold(*usual)
        gc.callbacks.remove(count)
    assert len(read[0]) >= 100
    assert len(tally.retries) > len(read[0])
