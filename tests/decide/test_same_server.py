"""One server is one node, however many names lead to it; and the picture as a whole."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lagwise import Policy, Reason, Route
from lagwise._decide.events import NodeChanged
from lagwise._decide.identity import Identity
from lagwise._decide.news import news
from lagwise._decide.refusing import refusal
from lagwise._decide.route import Demand, route
from lagwise._decide.view import Node, Role, Standing, View
from tests.kit.worlds import SYSTEM, lasting, leader, primary, read, replica, seen, turned, unreachable

OTHER = SYSTEM + 1
WRITE = Demand(write=True)
OURS = [primary(50), replica("replica-1", 50)]


def server(node: Node, started: int, port: int = 5432) -> Node:
    """The node, on the server that was started at this microsecond."""
    assert node.reading is not None
    return replace(node, reading=replace(node.reading, started=started, port=port))


def test_two_names_of_one_server_are_one_node() -> None:
    """The primary under a replica's name: no rival, not in rotation; the name that was configured first stands."""
    view = seen([server(primary(50), 11), server(primary(50, name="reads"), 11), server(replica("replica-2", 50), 12)])
    assert {n.name: str(n.standing) for n in view.nodes} == {
        "primary": "primary",
        "reads": "same-server",
        "replica-2": "in-rotation",
    }
    assert not view.alone
    # By URL alone they are two primaries on one timeline, and there is none.
    assert leader(seen([primary(50), primary(50, name="reads")])) is None


@pytest.mark.parametrize("fall_back", [True, False])
def test_one_server_under_every_name_is_a_router_without_replicas(fall_back: bool) -> None:
    """Reads and writes are served there, whatever the policy says of falling back."""
    view = seen([server(primary(50), 11), server(primary(50, name="reads"), 11)])
    policy = Policy(fall_back=fall_back)
    assert route(view, policy, Demand(), 0.0) == Route("primary", Reason.NO_REPLICAS)
    assert route(view, policy, WRITE, 0.0).node == "primary"


def test_a_reader_endpoint_that_moves_to_the_writer_and_back_moves_nothing_else() -> None:
    """The primary stays the primary; the second name leaves the rotation and comes back."""
    writer = server(primary(50), 11)
    there, here = server(replica("reads", 50), 12), server(primary(50, name="reads"), 11)
    standings = [
        (leader(view), str(view.node("reads").standing))
        for view in turned([[writer, node] for node in (there, here, there)])
    ]
    assert standings == [("primary", "in-rotation"), ("primary", "same-server"), ("primary", "in-rotation")]


def test_servers_that_differ_in_anything_are_two() -> None:
    """A copy of the cluster shares the system identifier, a neighbour the second of its start, a container the port."""
    one = server(primary(50), 11)
    for other in (
        server(replica("r", 50), 12),
        server(replica("r", 50), 11, 5433),
        server(replica("r", 50, system=OTHER), 11),
    ):
        assert seen([one, other]).node("r").standing is not Standing.SAME_SERVER
    assert seen([primary(50), replica("r", 50)]).node("r").standing == "in-rotation"


def test_a_second_name_is_no_second_voice() -> None:
    """A stranger under two of three URLs is one node that says so, and no majority."""
    strangers = [server(primary(50, name=name, system=OTHER), 11) for name in ("replica-1", "replica-2")]
    assert leader(seen([unreachable("primary"), *strangers])) is None
    assert leader(lasting([[*OURS, replica("replica-2", 50)]], [unreachable("primary"), *strangers], 1000)) is None


# The rest of the picture.


def test_nodes_come_and_go() -> None:
    """A replica is added and removed while the others are watched: by name, nothing else is disturbed."""
    before = seen([primary(40), OURS[1]], OURS)
    more = View.of([*read(OURS, 2.0), replica("replica-2", 50, 2.0)], before)
    assert [node.name for node in more.rotation] == ["replica-1", "replica-2"]
    assert more.history.lsns == before.history.lsns == (40, 50)
    assert list(news(before, more)) == [NodeChanged(node="replica-2", before=None, standing="in-rotation")]
    fewer = View.of(read(OURS[:1], 3.0), more)
    assert (fewer.rotation, fewer.alone, leader(fewer)) == ((), True, "primary")
    assert list(news(more, fewer)) == []


def test_a_view_tells_the_scenario_in_a_line() -> None:
    """As of its latest reading; names, standings and staleness, and no address."""
    now = seen([primary(50), replica("replica-1", 50), unreachable("replica-2"), replica("replica-3", 40)])
    for at in (1.0, 2.0, 9.0):
        nodes = [primary(60, at), replica("replica-1", 60 if at > 8 else 50, at), *now.nodes[2:]]
        now = View.of(nodes, now)
    shown = "replica-1 (in-rotation, 0.0 s), replica-2 (unreachable), replica-3 (lagging)"
    assert repr(now) == f"<View primary=primary replicas={shown}>"
    assert repr(View(nodes=())) == "<View primary=none replicas=none>"
    stale = View.of([primary(70, 20.0), replica("replica-1", 60, 20.0)], now)
    assert repr(stale) == "<View primary=primary replicas=replica-1 (lagging, 11.0 s)>"


def test_a_route_tells_itself_in_a_line() -> None:
    """Node, reason, and whether it is a replica's or only in its place."""
    assert repr(Route("replica-1", Reason.FRESH, on_replica=True)) == "<Route replica-1 fresh on-replica>"
    assert repr(Route("primary", Reason.ALL_LAGGING, fell_back=True)) == "<Route primary all-lagging fell-back>"
    assert repr(Route(None, Reason.WRITE)) == "<Route none write>"


def test_a_contradiction_is_said_in_the_error() -> None:
    """NoPrimary tells that belief will give way, and when."""
    view = lasting([OURS], [primary(5, system=OTHER), replica("replica-1", 5, system=OTHER)], 1)
    said = str(refusal(view, Policy(), route(view, Policy(), WRITE, 1.0), 1.0))
    assert "every node contradicts what is known of this cluster" in said
    assert "5 s" in said
    assert view.identity == Identity(
        system=SYSTEM, timeline=1, sure=True, leaders=frozenset({"primary"}), contradiction=view.identity.contradiction
    )
    assert all(node.reading is not None and node.reading.role in Role for node in view.nodes)
