"""What replicas would have done for a read that is held back, and what a naive split would have missed."""

from __future__ import annotations

import pytest

from lagwise import LSN, Reason, Route
from lagwise._decide.route import Demand
from lagwise._decide.shadow import Shadow, lacked, lacking
from lagwise._decide.view import Reading, Role
from tests.kit.worlds import SYSTEM, after, primary, replica, unreachable


def reading(lsn: int, at: float, timeline: int = 1) -> Reading:
    """What a replica said."""
    return Reading(role=Role.REPLICA, system=SYSTEM, timeline=timeline, lsn=LSN(lsn), at=at)


def test_a_naive_split_misses_a_write_by_the_share_of_the_replicas_that_lack_it() -> None:
    """Each replica counts by its weight, also one that is drained or lags; one that is not there serves no split."""
    nodes = [
        primary(50, 9.0),
        replica("has it", 45, weight=1),
        replica("lacks it", 40, weight=2),
        replica("drained", 41, weight=1, drained=True),
        unreachable("gone"),
    ]
    found = lacking(after(nodes), Demand(timeline=1, floor=LSN(45)))
    assert [(node.name, share) for node, share in found] == [("lacks it", 0.5), ("drained", 0.25)]
    assert lacking(after(nodes), Demand(timeline=1, floor=LSN(40))) == []
    assert lacking(after(nodes), Demand()) == []
    assert lacking(after([primary(50, 9.0)]), Demand(timeline=1, floor=LSN(45))) == []


def test_a_position_of_another_timeline_is_missed_by_replicas_of_an_earlier_one_alone() -> None:
    """After a promotion the replica that stayed behind lacks what came later, whatever its position says."""
    view = after([primary(50, timeline=2), replica("follows", 45, timeline=2), replica("stuck", 90, timeline=1)])
    assert [node.name for node, _ in lacking(view, Demand(timeline=2, floor=LSN(42)))] == ["stuck"]
    assert lacking(view, Demand(timeline=1, floor=LSN(60))) == []


@pytest.mark.parametrize(
    ("later", "moment", "expected"),
    [
        (reading(59, 11.0), 10.5, True),  # the later reading lacks it, so it was lacked before
        (reading(60, 10.505), 10.5, False),  # read at once: what it says is what the read would have found
        (reading(80, 11.0), 10.4, True),  # replayed evenly, 60 was reached at 10.5
        (reading(80, 11.0), 10.6, False),
        (reading(60, 11.0), 10.9, True),  # reached last of all
        (reading(80, 11.0, timeline=2), 10.1, False),  # positions of two timelines say nothing of times
    ],
)
def test_between_two_readings_a_position_is_reached_in_proportion(
    later: Reading, moment: float, expected: bool
) -> None:
    """At 10 s a replica was at 40; the client's write is at 60."""
    assert lacked(reading(40, 10.0), later, 1, LSN(60), moment) == expected


def test_the_counts_add_up() -> None:
    """Each read is served by a replica, or by the primary for a reason; a wait ends in one of the two."""
    shadow = Shadow()
    assert shadow.share == 0.0
    shadow = shadow.counting(Route("replica-1", Reason.FRESH, on_replica=True), 0.0, waited=False)
    shadow = shadow.counting(Route("replica-1", Reason.CAUGHT_UP, on_replica=True), 0.5, waited=True)
    shadow = shadow.counting(Route("primary", Reason.NONE_CAUGHT_UP, fell_back=True), 1.0, waited=True)
    shadow = shadow.counting(Route("primary", Reason.STICKY), 0.0, waited=False)
    shadow = shadow.passing_over()
    assert shadow == Shadow(
        reads=4,
        on_replicas=2,
        would_wait=2,
        in_time=1,
        on_primary={Reason.NONE_CAUGHT_UP: 1, Reason.STICKY: 1},
        naively_stale=1.5,
        unjudged=1,
    )
    assert (shadow.share, shadow.on_replicas + sum(shadow.on_primary.values())) == (0.5, shadow.reads)
