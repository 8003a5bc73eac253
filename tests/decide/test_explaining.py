"""What an explanation says is what the decision does, in every world."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lagwise import LSN, CausalToken, NoPrimary, NoReplica, Policy, Reason
from lagwise._decide.explaining import BECAUSE, explain
from lagwise._decide.route import Demand, route
from lagwise._decide.token import Position
from lagwise._decide.view import Node, View
from tests.kit.worlds import SYSTEM, after, primary, replica, unreachable

NOTHING = CausalToken()
PATIENT = Policy(max_lag=20, sticky_window=20)

demands = st.builds(
    Demand,
    write=st.sampled_from([False, False, False, True]),
    timeline=st.sampled_from([0, 2, 2, 2, 1, 3]),
    floor=st.integers(1, 45).map(LSN),
    expired=st.booleans(),
    sticky=st.sampled_from([False, False, True]),
    doubted=st.booleans(),
    max_staleness=st.sampled_from([None, None, 0.0, 2.0]),
)
policies = st.builds(
    Policy,
    max_lag=st.sampled_from([2.0, 5.0]),
    fall_back=st.booleans(),
    without_primary=st.sampled_from(["serve", "refuse"]),
)


places = st.integers(1, 40)
replicas = st.builds(
    replica,
    st.just("?"),
    places,
    st.integers(0, 14),
    timeline=st.sampled_from([2, 2, 2, 2, 1, 3]),
    weight=st.sampled_from([0.5, 1.0, 3.0]),
    drained=st.sampled_from([False, False, False, True]),
)


@st.composite
def views(draw: st.DrawFn) -> View:
    """A View after a few rounds of probes; in the last one there may be no primary."""
    heads = sorted(draw(st.lists(places, min_size=1, max_size=4)))
    others = [replace(one, name=f"replica-{n}") for n, one in enumerate(draw(st.lists(replicas, max_size=5)), 1)]
    rounds: list[list[Node]] = [[primary(head, float(at), timeline=2), *others] for at, head in enumerate(heads)]
    if draw(st.booleans()):
        rounds.append([unreachable("primary"), *others])
    return after(*rounds)


@given(views(), demands, policies, st.floats(0, 12))
def test_it_says_what_the_decision_does(view: View, demand: Demand, policy: Policy, now: float) -> None:
    """The nodes that serve are those that may be drawn, the reason is the decision's, an error is a refusal."""
    found = explain(view, policy, demand, now, token=NOTHING, wall=0.0)
    # Of weights in {0.5, 1, 3}, five replicas at most, none has less than a thirtieth of the share.
    drawn = [route(view, policy, demand, now, draw=lambda each=k / 64: each) for k in range(64)]  # type: ignore[misc]
    assert {each.reason for each in drawn} == {found.route.reason}
    assert {node.name for node in found.nodes if node.serves} == {each.node for each in drawn} - {None}
    assert (found.error is None) == (found.route.node is not None)
    assert [node.name for node in found.nodes] == [node.name for node in view.nodes]


@given(views(), demands, st.floats(0, 12))
def test_a_replica_that_serves_has_what_the_client_has_seen(view: View, demand: Demand, now: float) -> None:
    """No replica is said to do that lacks the floor, where positions can be compared."""
    found = explain(view, Policy(), demand, now, token=NOTHING, wall=0.0)
    for node in found.nodes:
        if found.route.on_replica and node.serves and demand.timeline == view.timeline and not demand.expired:
            assert not node.lacks


def test_every_reason_has_words() -> None:
    """A new reason gets a sentence here."""
    assert {str(reason) for reason in Reason} - set(BECAUSE) == set()


def test_a_replica_that_lacks_the_write_is_named_with_the_bytes() -> None:
    """In words: who would serve, who is behind and by how much, who is drained or gone; what the token says."""
    view = after(
        [
            primary(0x2000, 10.0),
            replica("near", 0x1900, 10.0),
            replica("far", 0x1800, 10.0),
            replica("spare", 0x2000, 10.0, drained=True),
            unreachable("gone"),
        ]
    )
    token = CausalToken.of([Position(system=SYSTEM, timeline=1, lsn=LSN(0x1880), issued_at=100)])
    view = after([primary(0x1000, 9.0)], [*view.nodes])
    demand = Demand(timeline=1, floor=LSN(0x1880))
    found = explain(view, PATIENT, demand, 10.5, token=token, wall=103.0)
    assert str(found).splitlines() == [
        "a read would go to near (caught-up): it has all that this client has seen, and is fresh enough",
        "  primary: the primary, at 0/2000",
        "  near: would do, 1.5 s behind at most",
        "  far: lacks 128 bytes of what this client has seen, 1.5 s behind at most",
        "  spare: drained",
        "  gone: unreachable (refused, ConnectionRefusedError)",
        "the token:",
        f"  0/1880 on timeline 1, of this cluster ({SYSTEM}), issued 3 s ago, the primary is 1920 bytes further",
    ]
    lacks = {node.name: node.lacks for node in found.nodes}
    assert lacks == {"primary": None, "near": 0, "far": 128, "spare": 0, "gone": None}


def test_a_wait_and_the_primary_instead() -> None:
    """Where no replica has the write: the primary, after a wait that is told; with fall_back=False the refusal."""
    view = after([primary(0x2000, 10.0), replica("replica-1", 0x1900, 10.0)])
    view = after([primary(0x1000, 9.0)], [*view.nodes])
    demand = Demand(timeline=1, floor=LSN(0x2000))
    found = explain(view, PATIENT, demand, 10.5, token=NOTHING, wall=0.0)
    assert (found.route.node, found.waits, found.error) == ("primary", 0.05, None)
    assert str(found).splitlines()[:2] == [
        "a read would go to primary (none-caught-up): no replica has all that this client has seen",
        "it would wait 0.05 s at most for a replica before that",
    ]
    alone = Policy(max_lag=20, sticky_window=20, fall_back=False)
    refused = explain(view, alone, demand, 10.5, token=NOTHING, wall=0.0)
    assert isinstance(refused.error, NoReplica)
    assert str(refused).startswith("a read would raise NoReplica (none-caught-up): no replica may serve this read")


def test_a_tighter_bound_is_told_as_such() -> None:
    """A replica in rotation that is too stale for this read alone is not called lagging."""
    view = after([primary(0x1000, 9.0)], [primary(0x2000, 10.0), replica("replica-1", 0x1900, 10.0)])
    found = explain(view, PATIENT, Demand(max_staleness=0.5), 10.5, token=NOTHING, wall=0.0)
    assert str(found.nodes[1]) == "replica-1: not fresh enough for this read, 1.5 s behind at most"


@pytest.mark.parametrize(("holding", "refused"), [(1, False), (2, True)])
def test_no_place_on_the_primary(holding: int, refused: bool) -> None:
    """At `fall_back_limit` it says the error that a session would get, and below it the primary."""
    view = after([primary(0x2000, 10.0), unreachable("replica-1")])
    policy = Policy(fall_back_limit=2)
    found = explain(view, policy, Demand(), 10.0, token=NOTHING, wall=0.0, fallen_back=holding)
    assert isinstance(found.error, NoReplica) is refused
    assert ("(fall_back_limit)" in str(found)) is refused


def test_a_write_without_a_primary() -> None:
    """NoPrimary, with the words of the error."""
    view = after([unreachable("primary"), replica("replica-1", 40)])
    found = explain(view, Policy(), Demand(write=True), 0.0, token=NOTHING, wall=0.0)
    assert isinstance(found.error, NoPrimary)
    assert str(found).startswith("a write would raise NoPrimary (write): no primary can be reached")


@pytest.mark.parametrize(
    ("position", "words"),
    [
        (Position(system=SYSTEM, timeline=1, lsn=LSN(0x2100), issued_at=100), "256 bytes beyond what the primary had"),
        (Position(system=SYSTEM, timeline=2, lsn=LSN(1), issued_at=100), "a later timeline than 1, the latest known"),
        (Position(system=SYSTEM + 1, timeline=1, lsn=LSN(1), issued_at=100), f"of another cluster ({SYSTEM + 1})"),
        (Position(system=0, in_doubt_at=100), "no position, of any cluster, issued 3 s ago, a commit is in doubt"),
        (Position(system=SYSTEM, timeline=1, lsn=LSN(1), issued_at=20), "further, the window has passed"),
        (Position(system=SYSTEM, timeline=1, lsn=LSN(1), issued_at=110), "issued 7 s ahead of this clock"),
        (Position(system=SYSTEM, timeline=1, lsn=LSN(1), issued_at=9, in_doubt_at=9), "was in doubt, and is no more"),
    ],
)
def test_what_a_token_says(position: Position, words: str) -> None:
    """Its cluster, timeline and place, its age, a doubt, and whether its window has passed."""
    view = after([primary(0x2000, 10.0), replica("replica-1", 0x2000, 10.0)])
    found = explain(view, Policy(), Demand(), 10.0, token=CausalToken.of([position]), wall=103.0)
    assert words in str(found.token[0])
    assert (found.token[0].position, found.token[0].ours) == (position, position.system in {0, SYSTEM})


@pytest.mark.parametrize(("until", "words"), [(100, True), (1, False)])
def test_one_of_many_answers_says_so(until: int, words: bool) -> None:
    """While commits that are not in the token may bind the client, and not afterwards."""
    view = after([primary(0x2000, 10.0), replica("replica-1", 0x2000, 10.0)])
    token = CausalToken.of([Position(system=SYSTEM, timeline=1, lsn=LSN(1), issued_at=100)]).crowded(until)
    found = explain(view, Policy(), Demand(), 10.0, token=token, wall=103.0)
    assert ("a read must see all that is committed when it begins" in str(found.token[0])) is words
