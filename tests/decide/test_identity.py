"""Which cluster is ours, and which timeline of it: who must have said so, and when that stops to count."""

from __future__ import annotations

from dataclasses import replace
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lagwise import LSN, Policy, Reason, Route
from lagwise._decide.events import (
    BeliefContradicted,
    ClusterChanged,
    ClusterUnconfirmed,
    Event,
    NodeChanged,
    TimelineAbandoned,
)
from lagwise._decide.identity import Terms, system_identifier
from lagwise._decide.news import news
from lagwise._decide.refusing import refusal
from lagwise._decide.route import Demand, route
from lagwise._decide.view import Node, View
from tests.kit.worlds import SYSTEM, TERMS, lasting, leader, primary, read, replica, seen, turned, unreachable

OTHER = SYSTEM + 1
WRITE = Demand(write=True)


def told(before: View, now: View) -> set[type[Event]]:
    """What is told beside changes of standing."""
    return {type(each) for each in news(before, now)} - {NodeChanged}


GONE = [unreachable("primary"), unreachable("replica-1")]
STRANGER = primary(60, name="replica-2", system=OTHER, timeline=9)
OURS = [primary(50), replica("replica-1", 50)]

# A start.


def test_one_node_alone_gets_no_write() -> None:
    """A wrong URL among the replicas, while ours cannot be reached: nothing is written, and the error says why."""
    view = seen([*GONE, STRANGER])
    assert (leader(view), view.node("replica-2").standing) == (None, "unconfirmed")
    said = str(refusal(view, Policy(), route(view, Policy(), WRITE, 0.0), 0.0))
    assert "replica-2 may belong to another cluster" in said
    assert "Router(system=...)" in said
    assert ClusterUnconfirmed in told(View(nodes=()), view)


def test_a_lone_word_loses_to_the_node_configured_as_primary() -> None:
    """As soon as that answers, at once, and with an error in the log."""
    before = seen([*GONE, STRANGER])
    view = View.of([*OURS, STRANGER], before)
    assert (leader(view), view.system, view.node("replica-2").standing) == ("primary", SYSTEM, "rival-primary")
    assert told(before, view) == {ClusterChanged}


def test_a_lone_word_loses_to_a_majority() -> None:
    """The configured primary is dead, and one node is a stranger's: the two that agree out of four are not enough."""
    ours = [replica("replica-1", 50, timeline=2), primary(50, name="replica-3", timeline=2)]
    before = seen([*GONE, STRANGER])
    assert leader(View.of([GONE[0], ours[0], STRANGER, ours[1]], before)) is None
    view = View.of([GONE[0], ours[0], STRANGER, ours[1], replica("replica-4", 50, timeline=2)], before)
    assert (leader(view), view.system, view.timeline) == ("replica-3", SYSTEM, 2)


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        ([unreachable("primary"), primary(50, name="replica-1", timeline=2)], None),
        ([unreachable("primary"), primary(50, name="replica-1", timeline=2), unreachable("replica-2")], None),
        (
            [unreachable("primary"), primary(50, name="replica-1", timeline=2), replica("replica-2", 50, timeline=2)],
            "replica-1",
        ),
        ([primary(50, timeline=1), primary(50, name="replica-1", timeline=2)], "replica-1"),
    ],
    ids=["one of two", "one of three", "two of three", "the old primary beside"],
)
def test_a_start_in_the_middle_of_a_failover(nodes: list[Node], expected: str | None) -> None:
    """The promoted node is written to once a majority, or the node configured as primary, says whose it is."""
    assert expected == leader(seen(nodes))


@pytest.mark.parametrize("others", [1, 2])
def test_a_pin_makes_a_lone_node_enough(others: int) -> None:
    """With the system identifier configured the promoted node that alone answers takes writes, a stranger never."""
    dead = [unreachable("primary"), *(unreachable(f"dead-{n}") for n in range(1, others))]
    pinned = replace(TERMS, pinned=SYSTEM)
    assert leader(seen([*dead, primary(50, name="replica-1", timeline=2)], terms=pinned)) == "replica-1"
    stranger = [*dead, primary(50, name="replica-1", system=OTHER)]
    assert leader(seen(*[stranger] * 20, terms=pinned)) is None
    configured = [primary(50, system=OTHER), *[replica(f"replica-{n}", 50, system=OTHER) for n in range(1, others + 1)]]
    assert leader(seen(*[configured] * 20, terms=pinned)) is None


def test_replicas_alone_are_read_before_the_cluster_is_confirmed() -> None:
    """Nothing can be written there; how stale they are is the policy's affair."""
    view = seen([unreachable("primary"), replica("replica-1", 50)])
    assert [node.name for node in view.rotation] == ["replica-1"]
    assert route(view, Policy(), Demand(), 0.0) == Route("replica-1", Reason.NO_PRIMARY, on_replica=True)
    assert route(view, Policy(), WRITE, 0.0).node is None


systems = st.sampled_from([SYSTEM, SYSTEM, OTHER])
members = st.one_of(
    st.just(unreachable("?")),
    st.builds(replica, st.just("?"), st.just(50), timeline=st.sampled_from([1, 2]), system=systems),
    st.builds(primary, st.just(50), name=st.just("?"), timeline=st.sampled_from([1, 2]), system=systems),
)
fleets = st.lists(members, min_size=1, max_size=5).map(
    lambda drawn: [replace(node, name=f"node-{number}") for number, node in enumerate(drawn)]
)


@given(fleets, st.sampled_from([0, SYSTEM, OTHER]))
def test_what_is_written_to_was_vouched_for(nodes: list[Node], pinned: int) -> None:
    """A pin, the node configured as primary, or more than half of the configured nodes: nothing less."""
    view = seen(nodes, terms=replace(TERMS, pinned=pinned))
    if view.primary is None or view.primary.reading is None:
        return
    system = view.primary.reading.system
    first = nodes[0].reading
    agreeing = sum(node.reading is not None and node.reading.system == system for node in nodes)
    if pinned:
        assert system == pinned
    else:
        assert (first is not None and first.system == system) or (first is None and agreeing > len(nodes) / 2)


@given(st.lists(fleets, min_size=1, max_size=12))
def test_one_cluster_at_a_time(rounds: list[list[Node]]) -> None:
    """Whatever the nodes say, in whichever order: the primary and the rotation are of the cluster believed in."""
    for nodes in turned(rounds):
        for node in [*nodes.rotation, *([nodes.primary] if nodes.primary else [])]:
            assert node.reading is not None
            assert node.reading.system == nodes.system
            assert node.reading.timeline == nodes.timeline
        assert nodes == View.of(nodes.nodes, nodes)


# Belief gives way.

PROMOTED = [primary(50), replica("replica-1", 50), primary(60, name="replica-2", timeline=2)]
UNDONE = [primary(70), replica("replica-1", 70), replica("replica-2", 70)]


@pytest.mark.parametrize(("seconds", "expected"), [(0, None), (4, None), (5, "primary"), (60, "primary")])
def test_an_undone_promotion_heals(seconds: int, expected: str | None) -> None:
    """A replica promoted by mistake and turned back: when all have denied its timeline for long enough it is over."""
    view = lasting([PROMOTED], UNDONE, seconds)
    assert expected == leader(view)
    assert (view.timeline, len(view.rotation)) == ((1, 2) if expected else (2, 0))
    before = lasting([PROMOTED], UNDONE, 4)
    assert told(before, View.of(read(UNDONE, 6.0), before)) == {TimelineAbandoned}
    assert told(seen(PROMOTED), lasting([PROMOTED], UNDONE, 0)) == {BeliefContradicted}


@pytest.mark.parametrize("standing", ["out of sight", "still promoted"])
def test_a_promoted_node_that_does_not_deny_it_keeps_its_writes(standing: str) -> None:
    """The old primary comes back while the new one is cut off: however long that lasts, it gets no write."""
    new = unreachable("replica-2") if standing == "out of sight" else PROMOTED[2]
    view = lasting([PROMOTED], [*UNDONE[:2], new], 1000)
    assert leader(view) == (None if standing == "out of sight" else "replica-2")
    assert view.timeline == 2


def test_a_dead_bystander_does_not_keep_an_undone_promotion_alive() -> None:
    """The node that was promoted denies it, and a majority with it: the third may be dead."""
    assert leader(lasting([PROMOTED], [UNDONE[0], unreachable("replica-1"), UNDONE[2]], 5)) == "primary"


def test_a_timeline_known_by_hearsay_is_denied_by_every_node_or_not_at_all() -> None:
    """A replica followed a primary that was never seen: any node that is silent may be the one."""
    hearsay = [primary(50), replica("replica-1", 60, timeline=2), unreachable("replica-2")]
    denied = [primary(70), replica("replica-1", 70), unreachable("replica-2")]
    assert leader(lasting([hearsay], denied, 1000)) is None
    assert leader(lasting([hearsay], [*denied[:2], replica("replica-2", 70)], 5)) == "primary"


def test_a_lone_node_in_recovery_denies_nothing() -> None:
    """It is not asked for its timeline: no promotion was undone, however long that lasts."""
    before, recovering = [primary(50)], [replica("primary", 0, timeline=0)]
    view = lasting([before], recovering, 1000)
    assert (leader(view), view.timeline, view.identity.contradiction) == (None, 1, None)
    assert told(seen(before), lasting([before], recovering, 0)) == set()
    assert leader(View.of(read([primary(60, timeline=2)], 1002.0), view)) == "primary"


NEW = [primary(5, system=OTHER), replica("replica-1", 5, system=OTHER), replica("replica-2", 5, system=OTHER)]


@pytest.mark.parametrize(("seconds", "expected"), [(0, None), (4, None), (5, "primary")])
def test_nodes_upgraded_behind_the_same_urls_heal(seconds: int, expected: str | None) -> None:
    """A new system identifier everywhere is believed after a while, and loudly."""
    view = lasting([UNDONE], NEW, seconds)
    assert expected == leader(view)
    assert view.system == (OTHER if expected else SYSTEM)
    before = lasting([UNDONE], NEW, 4)
    assert told(before, View.of(read(NEW, 6.0), before)) == {ClusterChanged}


def test_a_replica_that_is_not_rebuilt_yet_does_not_keep_an_upgrade_out() -> None:
    """Two of three nodes speak of the new cluster and none of the old: that is enough."""
    assert leader(lasting([UNDONE], [*NEW[:2], unreachable("replica-2")], 5)) == "primary"


@pytest.mark.parametrize(
    "nodes",
    [
        [unreachable("primary"), unreachable("replica-1"), STRANGER],
        [unreachable("primary"), replica("replica-1", 50), STRANGER],
        [primary(5, system=OTHER), replica("replica-1", 50), replica("replica-2", 5, system=OTHER)],
        [NEW[0], replica("replica-1", 5, system=OTHER + 1), unreachable("replica-2")],
    ],
    ids=["a stranger alone", "a stranger and ours", "one of ours among strangers", "two strangers that disagree"],
)
def test_a_stranger_is_not_believed_while_ours_may_come_back(nodes: list[Node]) -> None:
    """However long it lasts."""
    view = lasting([UNDONE], nodes, 1000)
    assert (leader(view), view.system) == (None, SYSTEM)


def test_a_stop_of_the_process_does_not_count_as_agreement() -> None:
    """An hour between two readings: the nodes have been asked once, and each must have been asked again since."""
    view = View.of(read(NEW, 3600.0), seen(UNDONE))
    assert leader(view) is None
    one = View.of([*read(NEW[:1], 3700.0), *read(NEW[1:], 3600.0)], view)
    assert leader(one) is None
    assert leader(View.of(read(NEW, 3605.0), one)) == "primary"


def test_a_word_of_support_starts_the_clock_anew() -> None:
    """A node that answers as believed, once, in between: the contradiction has not lasted."""
    rounds = [UNDONE, *[NEW] * 4, [*NEW[:2], UNDONE[2]], *[NEW] * 5]
    assert leader(seen(*rounds)) is None
    assert leader(seen(*rounds, NEW)) == "primary"


def test_without_terms_belief_does_not_give_way() -> None:
    """The patience is the policy's; none given, none lost."""
    assert leader(lasting([UNDONE], NEW, 1000, terms=Terms())) is None
    assert Terms.of(Policy()) == Terms(patience=5.0, max_lag=5.0)
    assert Terms.of(Policy(probe_interval=1, probe_timeout=2)).patience == 15.0
    assert Terms.of(Policy(sticky_window=60)).patience == 60.0


# Tokens of what was left behind.


@pytest.mark.parametrize("timeline", [1, 2])
def test_positions_of_an_abandoned_timeline_mean_the_primary_and_then_nothing(timeline: int) -> None:
    """Whatever was written while the mistake lasted is compared with no replica; nor what was written before."""
    view = lasting([PROMOTED], UNDONE, 5)
    now = view.at + 0.5
    chosen = route(view, Policy(), Demand(timeline=timeline, floor=LSN(10)), now)
    assert chosen == Route("primary", Reason.OTHER_TIMELINE)
    assert chosen.fell_back
    assert route(view, Policy(), Demand(write=True, timeline=timeline, floor=LSN(10)), now).node == "primary"
    assert route(view, Policy(), Demand(timeline=timeline, floor=LSN(10), expired=True), now).on_replica


def test_a_later_promotion_that_takes_the_same_number_is_not_confused_with_the_abandoned_one() -> None:
    """Timeline 2 again: a position of the first one is lower in number than what the second one's replicas have."""
    again = [unreachable("primary"), primary(80, name="replica-1", timeline=2), replica("replica-2", 80, timeline=2)]
    abandoned = lasting([PROMOTED], UNDONE, 5)
    view = View.of(read(again, 8.0), abandoned)
    demand = Demand(timeline=2, floor=LSN(60))
    assert route(view, Policy(), demand, 8.5) == Route("replica-1", Reason.OTHER_TIMELINE)
    # Without the bound in time this position would be taken for reached.
    forgetful = replace(view, suspect_until=-inf)
    assert route(forgetful, Policy(), demand, 8.5).on_replica
    later = View.of(read(again, 6.0 + TERMS.patience + 60.0), view)
    assert route(later, Policy(), demand, 71.5).reason == "caught-up"


# The pin.


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (7432109876543210987, 7432109876543210987),
        ("7432109876543210987", 7432109876543210987),
        (" 7 ", 7),
        (-1, (1 << 64) - 1),
        ("-1", (1 << 64) - 1),
        ((1 << 64) - 1, (1 << 64) - 1),
    ],
)
def test_a_pin_is_a_number_or_its_text(given: int | str, expected: int) -> None:
    """As pg_controldata prints it, or as SQL does, which knows signed numbers only."""
    assert expected == system_identifier(given)


@pytest.mark.parametrize(
    "given", [0, "", "main", True, 1 << 64, -(1 << 63) - 1, "9" * 5000, "1.5", "0x7", "--7", "\uff17"]
)
def test_a_pin_that_is_none_is_refused(given: int | str) -> None:
    """ValueError when the Router is built, not a cluster that never matches; and the message stays short."""
    with pytest.raises(ValueError, match="system must be the cluster's system identifier") as refused:
        system_identifier(given)
    assert len(str(refused.value)) < 200
