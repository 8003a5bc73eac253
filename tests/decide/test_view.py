"""What a View promises: who leads, who may serve reads, and a staleness that is never too low."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import replace
from itertools import accumulate
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

import lagwise.view
from lagwise import LSN
from lagwise.view import History, Node, Standing, View

from .worlds import SYSTEM, after, primary, replica, unreachable

lsns = st.integers(1, 40)
rising = st.lists(st.tuples(st.floats(0.001, 5), st.integers(0, 9)), min_size=1, max_size=60).map(
    lambda steps: list(
        zip(accumulate(step[0] for step in steps), accumulate((step[1] for step in steps), initial=1), strict=False)
    )
)
"""A primary's samples: (when, where), both rising, the position standing still now and then."""


def sampled(samples: list[tuple[float, int]]) -> History:
    """The history that saw these samples."""
    history = History()
    for at, lsn in samples:
        history = history.seen(LSN(lsn), at)
    return history


# History: the only clock that measures staleness.


@given(rising, st.integers(0, 600))
def test_freshness_is_the_latest_sample_at_or_below(samples: list[tuple[float, int]], replayed: int) -> None:
    """A replica is as fresh as the last moment at which the primary had written no more than it has replayed."""
    expected = max((at for at, lsn in samples if lsn <= replayed), default=-inf)
    assert expected == sampled(samples).fresh_at(LSN(replayed))


@given(rising, st.integers(3, 9), st.integers(0, 600))
def test_thinning_only_overstates_staleness(samples: list[tuple[float, int]], most: int, replayed: int) -> None:
    """A long history forgets samples of its older half: a replica can only look staler than it is."""
    full = sampled(samples).fresh_at(LSN(replayed))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lagwise.view, "_SAMPLES", most)
        thin = sampled(samples)
    assert len(thin.lsns) <= most
    assert thin.fresh_at(LSN(replayed)) <= full
    # The newest half is whole: what is nearly fresh is measured exactly.
    newest = samples[-1]
    assert newest[0] == thin.fresh_at(LSN(newest[1]))


def test_a_long_life_does_not_grow_the_history() -> None:
    """A day of samples takes the memory of a few minutes, and still tells a replica that is hours behind."""
    history = sampled([(at / 2, at) for at in range(1, 20_000)])
    assert len(history.lsns) == len(history.times) <= 512
    assert 0 < history.fresh_at(LSN(10_000)) <= 5_000
    assert -inf == history.fresh_at(LSN(0))


@given(
    st.lists(st.tuples(st.floats(0.01, 3), st.integers(1, 9)), min_size=1, max_size=60),
    st.lists(st.integers(0, 60), min_size=1, max_size=30),
    st.integers(3, 9),
    st.integers(0, 60),
)
def test_every_commit_before_the_fresh_time_has_been_replayed(
    steps: list[tuple[float, int]], probes: list[int], most: int, behind: int
) -> None:
    """The promise behind every staleness: what was acknowledged before `fresh_at` is in what was replayed.

    Commits happen at some times and end at some positions; a probe that is sent at a time reads a
    position that covers all commits before it, and maybe later ones; a replica has replayed up to some
    commit.
    """
    times = list(accumulate(step[0] for step in steps))
    ends = list(accumulate(step[1] for step in steps))
    history = History()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lagwise.view, "_SAMPLES", most)
        for at in sorted(probe for probe in probes):
            answered = bisect_right(times, at) + at % 2  # the answer may already cover the next commit
            if 0 < answered <= len(ends):
                history = history.seen(LSN(ends[answered - 1]), at)
    replayed = LSN(ends[min(behind, len(ends) - 1)])
    fresh_at = history.fresh_at(replayed)
    assert [end for when, end in zip(times, ends, strict=True) if when < fresh_at and end > replayed] == []


@given(rising, st.integers(1, 60))
def test_an_idle_primary_keeps_its_replicas_fresh(samples: list[tuple[float, int]], idle: int) -> None:
    """While nothing is written, a replica that has everything is as fresh as the last probe; memory stands still."""
    history = sampled(samples)
    at, lsn = samples[-1]
    later = sampled([*samples, *((at + second, lsn) for second in range(idle))])
    assert later.fresh_at(LSN(lsn)) == at + (idle - 1)
    assert len(history.lsns) == len(later.lsns)


@given(rising, st.integers(0, 200), st.integers(0, 600))
def test_a_crash_that_lost_log_takes_its_samples_along(
    samples: list[tuple[float, int]], lost_to: int, replayed: int
) -> None:
    """After the primary came back at a lower position, no position above it vouches for anything."""
    at = samples[-1][0] + 1
    history = sampled(samples).seen(LSN(lost_to), at)
    survived = [(when, lsn) for when, lsn in samples if lsn <= lost_to]
    expected = max((when for when, lsn in [*survived, (at, lost_to)] if lsn <= replayed), default=-inf)
    assert expected == history.fresh_at(LSN(replayed))


def test_a_late_answer_does_not_turn_time_back() -> None:
    """Equal positions keep the latest time, in whatever order they are seen."""
    assert sampled([(2.0, 5)]) == sampled([(2.0, 5), (1.0, 5)])


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
    assert set(Standing) - {"lagging"} == set(standings(view).values())


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


def test_primaries_of_two_clusters_are_none() -> None:
    """A URL that leads to another cluster must not take the writes."""
    view = after([primary(50), primary(60, name="replica-1", system=SYSTEM + 1, timeline=9)])
    assert view.primary is None


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
