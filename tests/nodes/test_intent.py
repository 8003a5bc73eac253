"""What a session asks of a view, given what its client has seen: floors, doubts and strangers."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from lagwise import LSN, Causality, CausalToken, Policy, Reason, Route
from lagwise._client import known
from lagwise._decide.route import Demand, route
from lagwise._decide.token import Position
from lagwise._decide.view import View
from lagwise._nodes.intent import Intent, register_cluster
from tests.kit.worlds import SYSTEM, after, primary, replica, unreachable

ELSEWHERE = SYSTEM + 90
READ = Intent(write=False)
VIEW = after([primary(40, 1.0), replica("replica-1", 40)])
INTENTS = {
    "read": READ,
    "strong": Intent(write=False, strong=Reason.STRONG),
    "held back": READ.held_back,
    "write": Intent(write=True),
    "bounded": Intent(write=False, max_staleness=1.0),
}


@pytest.fixture(autouse=True)
def met() -> Iterator[None]:
    """A process that has met this cluster and no other."""
    before = set(known.systems)
    known.systems.clear()
    known.systems.add(SYSTEM)
    yield
    known.systems.clear()
    known.systems.update(before)


def asked(*positions: Position, intent: Intent = READ, view: View = VIEW) -> Demand:
    """What a session asks whose client has seen these positions."""
    return intent.demand(Causality(CausalToken.of(positions)), Policy(), view)


def now() -> int:
    """Whole seconds, as in a token."""
    return int(time.time())


def here(lsn: int = 90, *, timeline: int = 1, age: int = 0) -> Position:
    """A write to this cluster, so many seconds ago."""
    return Position(system=SYSTEM, timeline=timeline, lsn=LSN(lsn), issued_at=now() - age)


@pytest.mark.parametrize("shape", INTENTS)
@pytest.mark.parametrize("seen", [None, Causality()], ids=["no causality", "nothing seen"])
def test_who_has_seen_nothing_asks_for_what_the_session_is_for(shape: str, seen: Causality | None) -> None:
    """No floor, no doubt."""
    intent = INTENTS[shape]
    expected = Demand(write=intent.write, strong=intent.strong, max_staleness=intent.max_staleness)
    assert expected == intent.demand(seen, Policy(), VIEW)


@pytest.mark.parametrize("shape", INTENTS)
def test_a_position_goes_along_whatever_the_session_is_for(shape: str) -> None:
    """Also for writes and strong reads: a later timeline says that the primary in sight is not the one."""
    intent = INTENTS[shape]
    request = asked(here(timeline=2), intent=intent)
    assert (request.timeline, request.floor, request.expired, request.sticky) == (2, LSN(90), False, False)
    assert (request.write, request.strong, request.max_staleness) == (
        intent.write,
        intent.strong,
        intent.max_staleness,
    )
    assert route(VIEW, Policy(), request, 2.0) == Route(None, Reason.OTHER_TIMELINE)


@pytest.mark.parametrize(("age", "expired"), [(0, False), (60, False), (70, True)])
def test_a_position_expires_a_minute_after_its_window(age: int, expired: bool) -> None:
    """Five seconds of window, and a minute for clocks that differ."""
    assert asked(here(age=age)).expired == expired


def test_a_doubt_about_this_cluster_sticks() -> None:
    """So does one about a cluster without a name, and neither does for ever."""
    assert asked(Position(system=SYSTEM, in_doubt_at=now())).sticky
    assert asked(Position(system=0, in_doubt_at=now())).sticky
    assert asked(here(), Position(system=0, in_doubt_at=now())).sticky
    assert not asked(Position(system=SYSTEM, in_doubt_at=now() - 70)).sticky
    assert not asked(here()).sticky


STRANGERS = {
    "placed": Position(system=ELSEWHERE, timeline=1, lsn=LSN(1), issued_at=1),
    "in doubt": Position(system=ELSEWHERE, in_doubt_at=1),
}


@pytest.mark.parametrize("kind", STRANGERS)
def test_a_strangers_position_or_doubt_sticks_until_its_window_ends(kind: str) -> None:
    """A cluster this process has not met may be this one before it was moved: the primary, inside the window."""
    stranger = STRANGERS[kind]
    fresh = replace(stranger, issued_at=stranger.issued_at * now(), in_doubt_at=stranger.in_doubt_at * now())
    assert asked(fresh).sticky
    assert asked(here(), fresh).sticky
    assert not asked(stranger).sticky
    known.systems.add(ELSEWHERE)
    assert not asked(fresh).sticky


def test_a_request_made_before_the_cluster_was_known_is_not_the_one_that_is_routed() -> None:
    """The floor is looked up for the cluster of the view that is routed on: the first node may answer in between."""
    unknown = after([unreachable("primary"), unreachable("replica-1")])
    later = View.of([unreachable("primary"), replica("replica-1", 40)], unknown)
    assert asked(here(), view=unknown).floor == 0
    assert asked(here(), view=later).floor == 90
    assert route(later, Policy(), asked(here(), view=later), 10.0).node is None


def test_a_cluster_that_belief_has_left_is_a_strangers() -> None:
    """Its positions mean the primary until their window ends, then nothing; those of the new one are compared."""
    moved = after([primary(40, system=ELSEWHERE), replica("replica-1", 40, system=ELSEWHERE)])
    there = Position(system=ELSEWHERE, timeline=1, lsn=LSN(30), issued_at=now())
    register_cluster(VIEW, moved)
    assert asked(here(), view=moved).sticky
    assert not asked(here(age=70), view=moved).sticky
    assert asked(there, view=moved) == Demand(timeline=1, floor=LSN(30))


def test_a_cluster_that_is_not_confirmed_is_not_registered() -> None:
    """A node that alone answers does not make its cluster known: tokens of it still mean the primary."""
    alone = after([unreachable("primary"), unreachable("replica-1"), primary(40, name="replica-2", system=ELSEWHERE)])
    register_cluster(VIEW, alone)
    assert ELSEWHERE not in known.systems
