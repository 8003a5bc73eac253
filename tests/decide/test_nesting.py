"""Causalities nest, and their memory is bounded."""

import asyncio

import pytest

from lagwise import LSN, Causality, Policy, Reason, Route
from lagwise._decide.route import Demand, route
from lagwise._decide.token import CausalToken, Position
from lagwise._nodes.intent import Intent
from tests.kit.commits import announced
from tests.kit.worlds import SYSTEM, after, replica, unreachable


def at(lsn: int, system: int = 7) -> Position:
    """A position in the log."""
    return Position(system=system, timeline=1, lsn=LSN(lsn), issued_at=1)


@pytest.mark.parametrize("raising", [False, True])
def test_what_an_inner_one_grows_by_the_outer_one_carries(raising: bool) -> None:
    """Its commits and what it read, also when it ends by an exception; not what it began with."""
    outer, inner = Causality(), Causality(CausalToken.of([at(5, system=9)]))
    try:
        with outer, inner:
            announced(inner, 7, 5.0).at(at(10))
            inner.saw(at(20), 5.0)
            if raising:
                raise RuntimeError
    except RuntimeError:
        assert raising
    assert (outer.token, outer.grew) == (CausalToken.of([at(20)]), True)
    assert inner.token == CausalToken.of([at(20), at(5, system=9)])


def test_a_commit_that_is_pending_when_the_inner_one_ends_is_the_outer_ones_too() -> None:
    """In doubt for both, until it is heard of by both."""
    with Causality() as outer:
        with Causality() as inner:
            commit = announced(inner, 7, 5.0)
        assert outer.token.position(7) is not None
        assert (outer.grew, bool(outer.token.position(7).in_doubt_at)) == (True, True)  # type: ignore[union-attr]
    commit.at(at(30))
    assert outer.token == inner.token == CausalToken.of([at(30)])


def test_a_refused_commit_leaves_nothing_in_either() -> None:
    """The server said no."""
    with Causality() as outer, Causality() as inner:
        announced(inner, 7, 5.0).refused()
    assert (outer.grew, inner.grew, outer.token) == (False, False, CausalToken())


def test_an_open_write_is_the_outer_ones_too() -> None:
    """The response of the request waits for it, whichever causality it was opened in."""
    with Causality() as outer, Causality() as inner:
        write = inner.begin(7, 5.0)
        assert (outer.writing, inner.writing) == (True, True)
        write.ended()
        write.ended()
        assert (outer.writing, inner.writing) == (False, False)


async def test_two_that_were_entered_inside_each_other_know_each_other_once() -> None:
    """Two tasks enter them the one way and the other: what either grows by, both carry, and nothing runs for ever."""
    one, other = Causality(), Causality()
    both = asyncio.Event()

    async def enter(first: Causality, second: Causality) -> None:
        with first, second:
            await both.wait()

    tasks = [asyncio.create_task(enter(one, other)), asyncio.create_task(enter(other, one))]
    await asyncio.sleep(0)
    announced(one, 7, 5.0).at(at(10))
    announced(other, 7, 5.0).at(at(20))
    both.set()
    await asyncio.gather(*tasks)
    assert one.token == other.token == CausalToken.of([at(20)])


def test_one_inside_itself_is_one() -> None:
    """Entered again, as a job does that calls another with what it has."""
    with Causality() as seen, seen:
        announced(seen, 7, 5.0).at(at(10))
    assert (seen.token, seen.changes) == (CausalToken.of([at(10)]), 2)


def test_the_routes_of_a_long_life_are_bounded() -> None:
    """A WebSocket that lives for days opens a session for every message."""
    seen = Causality()
    for _ in range(100_000):
        seen.routes.append(Route("replica-1", Reason.FRESH))
        announced(seen, 7, 5.0).at(at(10))
    assert len(seen.routes) < 100
    assert not seen.writing
    assert len(seen.token.positions) == 1


def test_without_a_primary_a_doubt_does_not_end() -> None:
    """Its window is long over; but nothing says how old the replicas are: `NoPrimary`, not a read without the write."""
    view = after([replica("replica-1", 90), unreachable("primary")])
    policy = Policy(without_primary="serve")
    now = 10_000.0
    assert route(view, policy, Demand(), now).node == "replica-1"
    assert route(view, policy, Demand(timeline=1, floor=LSN(80)), now).node == "replica-1"
    assert route(view, policy, Demand(doubted=True), now) == Route(None, Reason.NO_PRIMARY)
    assert route(view, policy, Demand(timeline=1, floor=LSN(80), doubted=True), now).node is None
    assert route(view, policy, Demand(timeline=9, floor=LSN(80), expired=True), now).node is None
    position = Position(system=SYSTEM, in_doubt_at=1)
    assert Intent(write=False).demand(Causality(CausalToken.of([position])), policy, view).doubted
