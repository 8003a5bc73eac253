"""What a View promises: who leads, who may serve reads, and a staleness that is never too low."""

from __future__ import annotations

from dataclasses import replace
from itertools import accumulate
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lagwise import LSN
from lagwise._decide.view import Node, Reading, Role, Standing, View
from tests.kit.worlds import SYSTEM, after, primary, replica, unreachable

lsns = st.integers(1, 40)

# Roles: what the nodes say, not what they were configured as.


def standings(view: View) -> dict[str, str]:
    """How every node stands."""
    return {node.name: str(node.standing) for node in view.nodes}


def test_every_standing() -> None:
    """Each way of not serving reads has its word, and the reason is the node's own reading."""
    view = after(
        [
            primary(50, at=9.0),
            replica("good", 50),
            replica("behind", 1),
            replica("drained", 50, drained=True),
            unreachable("gone"),
            replica("forked", 50, timeline=0),
            replica("foreign", 50, system=SYSTEM + 1),
            primary(70, name="deposed", timeline=0),
        ]
    )
    assert standings(view) == {
        "primary": "primary",
        "good": "in-rotation",
        "behind": "in-rotation",
        "drained": "drained",
        "gone": "unreachable",
        "forked": "other-timeline",
        "foreign": "other-cluster",
        "deposed": "rival-primary",
    }
    assert view.standing(view.node("behind"), 5.0, 10.0) == "lagging"
    assert view.standing(view.node("good"), 5.0, 10.0) == "in-rotation"
    assert view.standing(view.node("drained"), 5.0, 10.0) == "drained"
    rivals = after([primary(50), primary(60, name="rival"), replica("torn", 50), replica("drained", 50, drained=True)])
    assert standings(rivals) == {
        "primary": "rival-primary",
        "rival": "rival-primary",
        "torn": "rivals-replica",
        "drained": "rivals-replica",
    }
    assert set(Standing) - {"lagging", "same-server", "unconfirmed", "other-database"} == {
        *standings(view).values(),
        *standings(rivals).values(),
    }


def test_roles_are_discovered_not_believed() -> None:
    """With the URLs swapped the node called a replica leads, and the one called primary serves reads."""
    view = after([replica("primary", 5), primary(5, name="replica-1")])
    assert view.primary is not None
    assert view.primary.name == "replica-1"
    assert [node.name for node in view.rotation] == ["primary"]


def test_the_highest_timeline_leads() -> None:
    """A promoted replica takes over from a primary that still thinks it is one."""
    view = after(
        [
            primary(90),
            primary(50, name="replica-1", timeline=2),
            replica("replica-2", 50, timeline=2),
            replica("replica-3", 90),
        ]
    )
    assert standings(view) == {
        "primary": "rival-primary",
        "replica-1": "primary",
        "replica-2": "in-rotation",
        "replica-3": "other-timeline",
    }
    assert (view.system, view.timeline) == (SYSTEM, 2)


@pytest.mark.parametrize("lsn", [1, 50, 99])
def test_two_primaries_on_one_timeline_are_none(lsn: int) -> None:
    """Nobody can tell which of them has the acknowledged writes, so neither is written to or read from."""
    view = after([primary(50), primary(lsn, name="replica-1"), replica("replica-2", 50)])
    assert view.primary is None
    assert {"primary": "rival-primary", "replica-1": "rival-primary"}.items() <= standings(view).items()


def test_a_replica_of_rivals_is_out_until_one_of_them_is_gone() -> None:
    """Two histories share one timeline's number: no position tells which of them a replica follows."""
    rivals = [primary(50), primary(60, name="replica-1"), replica("replica-2", 60)]
    view = after(rivals)
    assert view.rotation == ()
    view = View.of([rivals[0], replica("replica-1", 50), rivals[2]], view)
    assert [node.name for node in view.rotation] == ["replica-2", "replica-1"]


FOREIGN = primary(5, name="replica-2", system=SYSTEM + 1, timeline=9)


def test_a_foreign_primary_does_not_take_over_while_ours_is_unreachable() -> None:
    """A node set up anew, or a wrong URL, is a primary of another cluster: our writes are not for it."""
    ours = [primary(90), replica("replica-1", 90), unreachable("replica-2")]
    view = after(ours, [unreachable("primary"), ours[1], FOREIGN])
    assert view.primary is None
    assert (view.system, view.timeline) == (SYSTEM, 1)
    assert standings(view) == {"primary": "unreachable", "replica-1": "in-rotation", "replica-2": "rival-primary"}


def test_a_foreign_primary_does_not_take_ours_down() -> None:
    """Once the cluster is known, initdb on a replica's address stops no write and no read."""
    ours = [primary(90), replica("replica-1", 90), unreachable("replica-2")]
    view = after(ours, [*ours[:2], FOREIGN])
    assert standings(view) == {"primary": "primary", "replica-1": "in-rotation", "replica-2": "rival-primary"}


@pytest.mark.parametrize("system", [SYSTEM - 1, SYSTEM + 1])
def test_a_foreign_replica_does_not_speak_of_our_timeline(system: int) -> None:
    """Nor is its cluster taken for ours, with our primary in sight or without."""
    stranger = replica("replica-2", 5, system=system, timeline=9)
    ours = [primary(90), replica("replica-1", 90)]
    for view in (after(ours, [*ours, stranger]), after(ours, [unreachable("primary"), ours[1], stranger])):
        assert (view.system, view.timeline) == (SYSTEM, 1)
        assert [node.name for node in view.rotation] == ["replica-1"]


def test_the_node_configured_as_primary_says_which_cluster_is_ours() -> None:
    """A URL that leads to another cluster must not take the writes; nor when ours cannot be reached at first."""
    foreign = primary(60, name="replica-1", system=SYSTEM + 1, timeline=9)
    view = after([primary(50), foreign])
    assert view.primary is not None
    assert (view.primary.name, view.node("replica-1").standing) == ("primary", "rival-primary")
    view = after([unreachable("primary"), foreign, replica("replica-2", 50)])
    assert (view.primary, view.rotation) == (None, ())


def test_a_deposed_primary_does_not_lead_again() -> None:
    """The old primary is restarted while the new one cannot be reached for a moment: it gets no write."""
    old, new = primary(90), primary(60, name="replica-1", timeline=2)
    view = after([old, unreachable("replica-1")], [old, new], [old, unreachable("replica-1")])
    assert view.primary is None
    assert (view.system, view.timeline) == (SYSTEM, 2)


def test_a_primary_whose_replicas_follow_another_does_not_lead() -> None:
    """A replica on a later timeline shows that somebody else was promoted, seen or not."""
    view = after([primary(90), replica("replica-1", 60, timeline=2)])
    assert view.primary is None
    assert [node.name for node in view.rotation] == ["replica-1"]


def test_a_new_timeline_begins_a_new_history() -> None:
    """Samples of the old timeline say nothing about positions on the new one."""
    old = [primary(90, at=1.0), replica("replica-1", 90)]
    view = after(old, [unreachable("primary"), primary(60, at=5.0, name="replica-1", timeline=2)])
    assert -inf == view.history.fresh_at(LSN(59))
    assert view.history.fresh_at(LSN(90)) == 5.0


def test_a_timeline_learnt_from_replicas_begins_a_new_history_too() -> None:
    """Whoever told of it.

    The old primary was still alive, cut off and sampled (500 at 100) when the new one, out of our sight, had
    forked at 400 and acknowledged up to 590 at 99.9: a replica of the new one at 550 is not fresh at 100.
    """
    view = after(
        [primary(500, 100.0), replica("replica-1", 400)],
        [unreachable("primary"), replica("replica-1", 550, timeline=2)],
    )
    assert view.node("replica-1").fresh_at == -inf
    view = View.of([primary(500, 101.0), replica("replica-1", 550, timeline=2)], view)
    assert view.primary is None
    assert view.node("replica-1").fresh_at == -inf


@pytest.mark.parametrize(("since", "expected"), [(7.0, True), (8.0, True), (8.1, False), (9.0, False)])
def test_all_have_been_heard_from_when_the_last_of_them_has(since: float, expected: bool) -> None:
    """It counts when a probe was sent, not when it was answered; primary, replica and drained node alike."""
    view = after([primary(5, 9.0), replica("replica-1", 5, 8.0), replica("replica-2", 5, 10.0, drained=True)])
    assert view.heard_from_all(since) == expected


def test_who_does_not_answer_has_not_been_heard_from() -> None:
    """An unreachable node may be the one that matters."""
    assert not after([primary(5, 9.0), unreachable("replica-1")]).heard_from_all(0.0)


def test_without_a_primary_what_was_known_stays_known() -> None:
    """Identity and history survive its loss; the staleness of replicas is bounded by the last sample."""
    before = [primary(50, at=4.0), replica("replica-1", 50), replica("foreign", 9, system=SYSTEM + 1, timeline=7)]
    view = after(before, [unreachable("primary"), *before[1:]])
    assert (view.system, view.timeline, view.primary) == (SYSTEM, 1, None)
    assert [node.name for node in view.rotation] == ["replica-1"]
    assert view.node("replica-1").fresh_at == 4.0
    assert view.node("replica-1").staleness(10.0) == 6.0


def test_without_any_primary_ever_the_replicas_agree_among_themselves() -> None:
    """Started during a failover: the replicas on the highest timeline may serve, of unknown staleness."""
    view = after([unreachable("primary"), replica("replica-1", 50), replica("replica-2", 60, timeline=2)])
    assert (view.system, view.timeline) == (SYSTEM, 2)
    assert [node.name for node in view.rotation] == ["replica-2"]
    assert inf == view.node("replica-2").staleness(10.0)


def test_replicas_that_follow_a_new_timeline_show_that_there_is_one() -> None:
    """While no primary is in sight, those left behind on the old timeline leave the rotation."""
    before = [primary(50, at=4.0), replica("replica-1", 50), replica("replica-2", 50)]
    view = after(before, [unreachable("primary"), before[1], replica("replica-2", 55, timeline=2)])
    assert [node.name for node in view.rotation] == ["replica-2"]


# Rotation: any floor and any bound select a prefix.

replicas = st.builds(
    replica,
    st.just("?"),
    lsns,
    timeline=st.sampled_from([1, 1, 1, 1, 0]),
    system=st.sampled_from([SYSTEM, SYSTEM, SYSTEM, SYSTEM, SYSTEM + 1]),
    weight=st.sampled_from([0.5, 1.0, 2.0, 3.0]),
    drained=st.sampled_from([False, False, False, True]),
)
nodes = st.lists(replicas | st.just(unreachable("?")), max_size=6).map(
    lambda drawn: [replace(node, name=f"replica-{number}") for number, node in enumerate(drawn, 1)]
)
lives = st.tuples(st.lists(lsns, min_size=1, max_size=8), nodes, st.booleans())


@st.composite
def views(draw: st.DrawFn) -> tuple[View, list[tuple[float, int]]]:
    """A View after some rounds of probes, and the samples of the primary that are still good."""
    rounds, others, lost = draw(lives)
    view = None
    samples: list[tuple[float, int]] = []
    for at, lsn in enumerate(rounds):
        view = View.of([primary(lsn, float(at)), *others], view)
        samples = [sample for sample in samples if sample[1] <= lsn] + [(float(at), lsn)]
    if lost:
        view = View.of([unreachable("primary"), *others], view)
    assert view is not None
    return view, samples


def freshness(node: Node, samples: list[tuple[float, int]]) -> float:
    """The definition, read aloud."""
    assert node.reading is not None
    return max((at for at, lsn in samples if lsn <= node.reading.lsn), default=-inf)


@given(views(), st.integers(0, 45), st.floats(-1, 9))
def test_any_floor_and_any_bound_select_a_prefix(
    drawn: tuple[View, list[tuple[float, int]]], floor: int, since: float
) -> None:
    """Against a scan of all nodes: the first so many of the rotation are those that qualify, and no other."""
    view, samples = drawn
    good = [
        node
        for node in view.nodes
        if node.reading is not None
        and node.name != "primary"
        and (node.reading.system, node.reading.timeline, node.drained) == (SYSTEM, 1, False)
    ]
    assert {node.name for node in good} == {node.name for node in view.rotation}
    reached = {node.name for node in good if node.reading is not None and node.reading.lsn >= floor}
    assert reached == {node.name for node in view.rotation[: view.caught_up(floor)]}
    fresh = {node.name for node in good if freshness(node, samples) >= since}
    assert fresh == {node.name for node in view.rotation[: view.fresh(since)]}
    assert tuple(accumulate(node.weight for node in view.rotation)) == view.weights


@given(views())
def test_a_replica_of_unknown_freshness_is_within_no_bound(drawn: tuple[View, list[tuple[float, int]]]) -> None:
    """Who has replayed less than any sample is stale without bound."""
    view, samples = drawn
    for node in view.rotation[view.fresh(-1e300) :]:
        assert -inf == freshness(node, samples)
        assert inf == node.staleness(1e300)


@given(views(), st.sets(st.sampled_from(["primary", "replica-1", "replica-2", "nobody"])))
def test_without_takes_nodes_out_of_rotation_and_nothing_else(
    drawn: tuple[View, list[tuple[float, int]]], names: set[str]
) -> None:
    """A retry goes past the replica that has just failed; who leads, and what is known, stay the same."""
    view, _ = drawn
    rest = view.without(frozenset(names))
    assert [node.name for node in view.rotation if node.name not in names] == [node.name for node in rest.rotation]
    assert (view.history, view.system, view.timeline) == (rest.history, rest.system, rest.timeline)
    assert (view.primary and view.primary.name) == (rest.primary and rest.primary.name)


@given(views())
def test_judging_again_changes_nothing(drawn: tuple[View, list[tuple[float, int]]]) -> None:
    """Every reading of any node judges all of them; those that did not change stay as they were."""
    view, _ = drawn
    assert view == View.of(view.nodes, view)


def test_a_drained_replica_is_watched_but_not_used() -> None:
    """It keeps its reading and its staleness, so that undraining it needs no new one; a primary does not drain."""
    view = after([replace(primary(5, at=1.0), drained=True), replica("replica-1", 5, drained=True)])
    assert view.rotation == ()
    assert standings(view) == {"primary": "primary", "replica-1": "drained"}
    assert view.node("replica-1").staleness(2.0) == 1.0


def test_an_unknown_node_is_a_key_error() -> None:
    """A misspelt name does not look like a node that is down."""
    with pytest.raises(KeyError, match="replica-9"):
        after([primary(5)]).node("replica-9")


@pytest.mark.parametrize(("now", "expected"), [(3.0, 1.0), (2.0, 0.0), (1.0, 0.0)])
def test_staleness_is_never_negative(now: float, expected: float) -> None:
    """A reading that is younger than the question is simply fresh."""
    assert expected == Node(name="replica-1", fresh_at=2.0).staleness(now)


def of_database(node: Node, database: int) -> Node:
    """The node with a URL that leads to this database."""
    assert node.reading is not None
    return replace(node, reading=replace(node.reading, database=database))


def test_another_database_of_the_cluster_is_not_read() -> None:
    """The node configured as primary says which is ours; a server that was not asked is believed."""
    ours, other = of_database(primary(50), 5), of_database(replica("replica-1", 50), 6)
    view = after([ours, other, of_database(replica("replica-2", 50), 5), replica("replica-3", 50)])
    assert standings(view)["replica-1"] == "other-database"
    assert [node.name for node in view.rotation] == ["replica-2", "replica-3"]


def test_nor_is_it_written_to_after_its_promotion() -> None:
    """While the node configured as primary is away, its database is still ours, not that of the promoted node's URL."""
    view = after([of_database(primary(50), 5), of_database(replica("replica-1", 50), 6)])
    promoted = of_database(primary(60, name="replica-1", timeline=2), 6)
    view = View.of([unreachable("primary"), promoted], view)
    assert (view.primary, standings(view)["replica-1"]) == (None, "other-database")
    right = of_database(primary(60, name="replica-1", timeline=2), 5)
    view = View.of([unreachable("primary"), right], view)
    assert view.primary is not None


def test_a_database_that_was_made_anew_is_ours() -> None:
    """DROP DATABASE and CREATE DATABASE: another OID on the node configured as primary, and on its replicas."""
    view = after([of_database(primary(50), 5), of_database(replica("replica-1", 50), 5)])
    view = View.of([of_database(primary(60), 7), of_database(replica("replica-1", 60), 7)], view)
    assert standings(view) == {"primary": "primary", "replica-1": "in-rotation"}


def test_a_start_while_the_configured_primary_is_away() -> None:
    """The primary that is there says which database is ours."""
    here = [unreachable("primary"), of_database(primary(50, name="replica-1"), 5)]
    view = View.of([*here, of_database(replica("replica-2", 50), 6), of_database(replica("replica-3", 50), 5)])
    assert standings(view)["replica-2"] == "other-database"
    assert standings(view)["replica-3"] != "other-database"


def test_lag_is_told_within_one_history_only() -> None:
    """Positions of another cluster, or of another timeline, cannot be compared: past the primary is not 0 behind."""
    nodes = [
        primary(50, timeline=2),
        replica("behind", 20, timeline=2),
        replica("left", 70, timeline=1),
        primary(90, name="deposed", timeline=1),
        replica("foreign", 70, timeline=2, system=SYSTEM + 1),
        unreachable("gone"),
    ]
    view = after(nodes)
    assert [view.lag(node) for node in view.nodes] == [0, 30, None, None, None, None]
    assert after([unreachable("primary"), replica("replica-1", 50)]).lag(view.node("behind")) is None


def test_a_replica_that_runs_keeps_its_timeline() -> None:
    """Its control file is late: what it showed before counts, in the same run, unless it has lost log."""

    def answer(timeline: int, lsn: int = 50, *, started: int = 11, role: Role = Role.REPLICA) -> Reading:
        return Reading(role=role, system=SYSTEM, timeline=timeline, lsn=LSN(lsn), at=1.0, started=started, port=5432)

    shown = answer(2)
    assert [answer(1, lsn).after(shown).timeline for lsn in (49, 50, 60)] == [1, 2, 2]
    assert answer(3).after(shown).timeline == 3
    assert answer(1).after(None).timeline == 1
    assert answer(1, started=12).after(shown).timeline == 1
    assert answer(1, started=0).after(answer(2, started=0)).timeline == 1
    assert answer(1, role=Role.PRIMARY).after(shown).timeline == 1
    assert answer(1, 60).after(shown) == answer(2, 60)


def test_staleness_is_shown_where_it_has_a_bound() -> None:
    """None for a node that is not followed, as health and metrics show it; the primary is never stale."""
    view = after([primary(50, at=9.0), replica("good", 50), unreachable("gone")])
    assert [node.shown_staleness(10.0) for node in view.nodes] == [0.0, 1.0, None]
