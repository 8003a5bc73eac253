"""Which database of the cluster is ours: who says so, who may deny it, and when that is believed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lagwise import Policy
from lagwise._decide.events import NodeChanged
from lagwise._decide.identity import Terms
from lagwise._decide.news import DatabaseChanged, news
from lagwise._decide.refusing import refusal
from lagwise._decide.route import Demand, route
from lagwise._decide.view import Node, View
from tests.kit.worlds import lasting, leader, primary, read, replica, seen, unreachable

OURS, ANEW, ARCHIVE = 5, 7, 6


def of_database(node: Node, database: int) -> Node:
    """The node with a URL that leads to this database."""
    assert node.reading is not None
    return replace(node, reading=replace(node.reading, database=database))


def cluster(gone: Node, one: int, other: int | None = OURS) -> list[Node]:
    """After a failover: the node configured as primary, the promoted one, and the replica, with these databases."""
    promoted = of_database(primary(60, name="replica-1", timeline=2), one)
    last = of_database(replica("replica-2", 60, timeline=2), other) if other else unreachable("replica-2")
    return [gone, promoted, last]


DEAD, DEPOSED = unreachable("primary"), of_database(primary(90), OURS)
BEFORE = [of_database(node, OURS) for node in (primary(50), replica("replica-1", 50), replica("replica-2", 50))]
AWAY = pytest.mark.parametrize("away", [DEAD, DEPOSED], ids=["dead", "deposed"])


@AWAY
@pytest.mark.parametrize(("seconds", "expected"), [(0, None), (4, None), (5, "replica-1"), (60, "replica-1")])
def test_a_database_made_anew_after_a_failover_is_believed_in_time(
    away: Node, seconds: int, expected: str | None
) -> None:
    """The primary that led to the old one leads to the new one, for as long as any belief needs to give way."""
    view = lasting([BEFORE, cluster(away, OURS)], cluster(away, ANEW, ANEW), seconds)
    assert expected == leader(view)
    assert [node.name for node in view.rotation] == (["replica-2"] if expected else [])
    assert view.nodes[0].standing == ("unreachable" if away is DEAD else "rival-primary")


@AWAY
def test_where_it_gives_way_it_is_told(away: Node) -> None:
    """By an event, and until then by the error of a write."""
    before = lasting([BEFORE, cluster(away, OURS)], cluster(away, ANEW, ANEW), 4)
    said = str(refusal(before, Policy(), route(before, Policy(), Demand(write=True), 6.0), 6.0))
    assert "lead to another database now than before" in said
    assert "5 s" in said
    now = View.of(read(cluster(away, ANEW, ANEW), 7.0), before)
    assert [each for each in news(before, now) if not isinstance(each, NodeChanged)] == [
        DatabaseChanged(believed=OURS, database=ANEW)
    ]


@AWAY
def test_a_promoted_node_with_a_wrong_url_gets_nothing_however_long_it_is_alone(away: Node) -> None:
    """It never led to our database, so it denies nothing."""
    start = [BEFORE[0], of_database(replica("replica-1", 50), ARCHIVE), BEFORE[2]]
    for rest in (OURS, None):
        view = lasting([start], cluster(away, ARCHIVE, rest), 1000)
        assert (leader(view), view.node("replica-1").standing) == (None, "other-database")


def test_a_replica_that_has_not_replayed_it_yet_is_not_waited_for() -> None:
    """It is not read until it has, and writes come back without it."""
    view = lasting([BEFORE, cluster(DEAD, OURS)], cluster(DEAD, ANEW), 5)
    assert (leader(view), view.node("replica-2").standing) == ("replica-1", "other-database")


def test_a_primary_that_was_never_seen_before_is_confirmed_by_those_that_were() -> None:
    """They must agree with it: its own URL may be wrong."""
    start = [BEFORE[0], unreachable("replica-1"), BEFORE[2]]
    assert leader(lasting([start], cluster(DEAD, ANEW, ANEW), 4)) is None
    assert leader(lasting([start], cluster(DEAD, ANEW, ANEW), 5)) == "replica-1"
    for one, other in ((ANEW, OURS), (ARCHIVE, ANEW)):
        assert leader(lasting([start], cluster(DEAD, one, other), 1000)) is None


def test_a_word_of_support_starts_the_clock_anew() -> None:
    """The old database answers once more in between: the denial has not lasted."""
    rounds = [BEFORE, *[cluster(DEAD, ANEW, ANEW)] * 4, cluster(DEAD, OURS), *[cluster(DEAD, ANEW, ANEW)] * 5]
    assert leader(seen(*rounds)) is None
    assert leader(seen(*rounds, cluster(DEAD, ANEW, ANEW))) == "replica-1"


def test_the_node_configured_as_primary_is_believed_at_once_as_a_replica_too() -> None:
    """It has joined our line: its word is worth what it was, also while it has not replayed a change."""
    returned = of_database(replica("primary", 60, timeline=2), ANEW)
    view = seen(BEFORE, cluster(DEAD, OURS), cluster(returned, ANEW, ANEW))
    assert leader(view) == "replica-1"
    behind = of_database(replica("primary", 50, timeline=2), OURS)
    view = lasting([BEFORE, cluster(DEAD, OURS)], cluster(behind, ANEW, ANEW), 1000)
    assert (leader(view), view.node("replica-1").standing) == (None, "other-database")


@AWAY
def test_a_start_beside_a_database_made_anew(away: Node) -> None:
    """What a deposed primary says of it is of another history: the primary's word counts."""
    assert leader(seen(cluster(away, ANEW, ANEW))) == "replica-1"


def test_a_stop_of_the_process_does_not_count_as_denial() -> None:
    """An hour between two readings: each node must have been asked again since."""
    view = View.of(read(cluster(DEAD, ANEW, ANEW), 3600.0), seen(BEFORE, cluster(DEAD, OURS)))
    assert leader(view) is None
    assert leader(View.of(read(cluster(DEAD, ANEW, ANEW), 3605.0), view)) == "replica-1"


def test_two_rivals_of_one_timeline_say_nothing_of_it() -> None:
    """Which of two histories is ours is not known, and so not what its database is."""
    rivals = [
        of_database(primary(70), ANEW),
        of_database(primary(70, name="replica-1"), ANEW),
        unreachable("replica-2"),
    ]
    view = lasting([BEFORE], rivals, 1000)
    assert (leader(view), view.database.oid) == (None, OURS)


def test_without_terms_it_stands() -> None:
    """The patience is the policy's; none given, none lost."""
    assert leader(lasting([BEFORE, cluster(DEAD, OURS)], cluster(DEAD, ANEW, ANEW), 1000, terms=Terms())) is None
