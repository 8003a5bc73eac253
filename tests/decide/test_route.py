"""What the decision promises, against a reading of the rules that scans every node and cannot be wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import product
from math import inf
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lagwise import LSN, NoPrimary, NoReplica, Policy, Reason, Route
from lagwise._decide.refusing import refusal
from lagwise._decide.route import Demand, _shared, deposed, less_loaded, route
from lagwise._decide.view import Node, Role, View
from tests.kit.worlds import SYSTEM, after, primary, replica, unreachable

# A world small enough that floors, positions and bounds meet: some forty positions, ten seconds.

places = st.integers(1, 40)
replicas = st.builds(
    replica,
    st.just("?"),
    places,
    st.integers(0, 14),
    timeline=st.sampled_from([2, 2, 2, 2, 1, 3]),
    system=st.sampled_from([SYSTEM, SYSTEM, SYSTEM, SYSTEM, SYSTEM + 1]),
    weight=st.sampled_from([0.5, 1.0, 2.0, 3.0]),
    drained=st.sampled_from([False, False, False, True]),
)
leaders = st.sampled_from(["one", "one", "one", "none", "deposed beside", "rival beside", "never"])


@dataclass(frozen=True)
class World:
    """A View, and what a scan needs to judge it by: no prefix, no bisection, no history object."""

    view: View
    samples: list[tuple[float, int]]
    led: bool
    split: bool = False

    def freshness(self, node: Node) -> float:
        """The last moment at which the primary had written no more than this node has replayed."""
        assert node.reading is not None
        return max((at for at, lsn in self.samples if lsn <= node.reading.lsn), default=-inf)

    def qualified(self, request: Demand, bound: float, now: float) -> set[str]:
        """The replicas that may serve this read, found by looking at every one of them."""
        found: set[str] = set()
        floor = self.floor(request, now)
        if self.split or floor is None:
            return found
        for node in self.view.nodes:
            reading = node.reading
            if reading is None or reading.role is not Role.REPLICA or node.drained:
                continue
            if (reading.system, reading.timeline) != (self.view.system, self.view.timeline):
                continue
            if self.led and self.freshness(node) < now - bound:
                continue
            if reading.lsn >= floor:
                found.add(node.name)
        return found

    def deposed(self, request: Demand, now: float) -> bool:
        """Whether the client has seen a timeline that nobody here speaks of, and not everybody has been asked."""
        asked = [node.reading is not None and node.reading.at >= now for node in self.view.nodes]
        return request.timeline > self.view.timeline and not request.outlived and not all(asked)

    def floor(self, request: Demand, now: float) -> int | None:
        """What the client must see; 0 for anything, None for what no replica can prove."""
        if request.timeline == 0:
            return 0
        if request.timeline != self.view.timeline:
            return 0 if request.expired else None
        asked, head = self.samples[-1] if self.samples else (0.0, 0)
        if request.expired and self.led and asked >= now and request.floor > head:
            return 0
        return request.floor


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """Nodes after a few rounds of probes, with a primary, without, or with more than one."""
    others = [
        replace(node, name=f"replica-{number}")
        for number, node in enumerate(draw(st.lists(replicas | st.just(unreachable("?")), min_size=1, max_size=5)), 1)
    ]
    case = draw(leaders)
    if case == "never":
        return World(View.of([unreachable("primary"), *others]), [], led=False)
    # Whoever follows a newer timeline speaks against the primary; that is another test's business.
    others = [node for node in others if node.reading is None or node.reading.timeline < 3]
    view, lead = None, primary(0)
    samples: list[tuple[float, int]] = []
    for second, lsn in enumerate(draw(st.lists(places, min_size=1, max_size=8))):
        lead = primary(lsn, float(second), timeline=2)
        view = View.of([lead, *others], view)
        samples = [sample for sample in samples if sample[1] <= lsn] + [(float(second), lsn)]
    last = {
        "one": [lead],
        "none": [unreachable("primary")],
        "deposed beside": [lead, primary(draw(places), name="old", timeline=1)],
        "rival beside": [lead, primary(draw(places), name="rival", timeline=2)],
    }[case]
    return World(View.of([*last, *others], view), samples, case in {"one", "deposed beside"}, case == "rival beside")


requests = st.builds(
    Demand,
    write=st.sampled_from([False, False, False, True]),
    strong=st.sampled_from([None, None, None, Reason.STRONG, Reason.HELD_BACK]),
    timeline=st.sampled_from([0, 2, 2, 2, 1, 3]),
    floor=st.integers(0, 45).map(LSN),
    expired=st.booleans(),
    outlived=st.booleans(),
    sticky=st.sampled_from([False, False, False, True]),
    max_staleness=st.sampled_from([None, None, 0.0, 1.0, 3.0, 60.0]),
).map(lambda request: replace(request, outlived=request.expired and request.outlived))
ordinary = requests.map(lambda request: replace(request, write=False, strong=None, sticky=False))
policies = st.builds(
    Policy,
    max_lag=st.sampled_from([1.0, 3.0, 5.0]),
    fall_back=st.booleans(),
    without_primary=st.sampled_from(["serve", "refuse"]),
)
moments = st.floats(0, 14)
draws = st.lists(st.floats(0, 1, exclude_max=True), min_size=2, max_size=2)


def scripted(numbers: list[float]) -> Callable[[], float]:
    """A random source that answers these numbers, in order."""
    return iter(numbers).__next__


def leader(view: View) -> str | None:
    """The one node that takes writes."""
    return view.primary.name if view.primary else None


@given(worlds(), requests, policies, moments, draws)
def test_writes_and_strong_reads_go_to_the_one_primary(
    world: World, request: Demand, policy: Policy, now: float, numbers: list[float]
) -> None:
    """Never to a replica, a rival, or a primary that the client knows to be deposed; without a primary nowhere."""
    if not (request.write or request.strong):
        request = replace(request, write=True)
    expected = Route(leader(world.view), Reason.WRITE if request.write else request.strong or Reason.STRONG)
    if world.deposed(request, now):
        expected = Route(None, Reason.OTHER_TIMELINE)
    assert expected == route(world.view, policy, request, now, draw=scripted(numbers))
    assert (leader(world.view) is None) == (not world.led)


@given(worlds(), ordinary, policies, moments, draws)
def test_a_floor_is_a_floor(world: World, request: Demand, policy: Policy, now: float, numbers: list[float]) -> None:
    """The promise itself: no replica serves a client that has seen more, or another timeline, than it has replayed."""
    chosen = route(world.view, policy, request, now, draw=scripted(numbers))
    if chosen.on_replica and request.timeline and not request.expired:
        assert chosen.node is not None
        reading = world.view.node(chosen.node).reading
        assert reading is not None
        assert reading.timeline == request.timeline
        assert reading.lsn >= request.floor


@given(worlds(), ordinary, policies, moments, draws)
def test_a_stale_replica_serves_nobody_while_a_primary_is_in_sight(
    world: World, request: Demand, policy: Policy, now: float, numbers: list[float]
) -> None:
    """What makes a forgotten token harmless: every replica that serves includes all commits older than the bound."""
    chosen = route(world.view, policy, request, now, draw=scripted(numbers))
    if chosen.on_replica and world.led:
        assert chosen.node is not None
        bound = min(policy.max_lag, inf if request.max_staleness is None else request.max_staleness)
        assert world.freshness(world.view.node(chosen.node)) >= now - bound


@given(worlds(), ordinary, policies, moments, draws)
def test_a_replica_that_qualifies_is_used_and_no_other(
    world: World, request: Demand, policy: Policy, now: float, numbers: list[float]
) -> None:
    """With a primary in sight: a replica if a scan finds one that qualifies, else the primary, else an error."""
    if not world.led:
        return
    bound = min(policy.max_lag, inf if request.max_staleness is None else request.max_staleness)
    qualified = world.qualified(request, bound, now)
    chosen = route(world.view, policy, request, now, draw=scripted(numbers))
    if len(world.view.nodes) == 1:
        assert chosen == Route("primary", Reason.NO_REPLICAS)
    elif qualified:
        assert chosen.node in qualified
        assert chosen.on_replica
    elif world.deposed(request, now):
        assert chosen == Route(None, Reason.OTHER_TIMELINE)
    else:
        assert (chosen.node, chosen.on_replica) == ("primary" if policy.fall_back else None, False)


@given(worlds(), ordinary, policies, moments, draws)
def test_without_a_primary_a_read_is_served_by_the_rules_or_not_at_all(
    world: World, request: Demand, policy: Policy, now: float, numbers: list[float]
) -> None:
    """A floor is still a floor, a bound asked for is still a bound; beyond that the policy decides."""
    if world.led:
        return
    chosen = route(world.view, policy, request, now, draw=scripted(numbers))
    assert chosen.on_replica == (chosen.node is not None)
    bound = min(policy.max_lag, inf if request.max_staleness is None else request.max_staleness)
    qualified = world.qualified(request, inf, now)
    bounded = {name for name in qualified if world.freshness(world.view.node(name)) >= now - bound}
    # A bound that is asked for holds for everybody. The policy's own is lifted by a floor, or by the user's choice.
    # A token whose position says nothing here leaves its write uncovered, and nothing is lifted for it.
    floor = world.floor(request, now)
    lifted = request.max_staleness is None and (floor or (request.timeline == 0 and policy.without_primary == "serve"))
    served = qualified if lifted else bounded
    assert chosen.node in served if served else chosen.node is None


@given(worlds(), ordinary, policies, moments, draws)
def test_reads_are_kept_off_the_primary_where_the_policy_says_so(
    world: World, request: Demand, policy: Policy, now: float, numbers: list[float]
) -> None:
    """fall_back=False: a replica or NoReplica, never the primary; with no replica configured there is no choice."""
    policy = replace(policy, fall_back=False)
    chosen = route(world.view, policy, request, now, draw=scripted(numbers))
    assert chosen.node is None or chosen.on_replica or chosen.reason is Reason.NO_REPLICAS


@given(worlds(), ordinary, policies, moments, draws)
def test_a_client_in_doubt_reads_from_the_primary(
    world: World, request: Demand, policy: Policy, now: float, numbers: list[float]
) -> None:
    """A commit whose position is unknown is seen on the primary, whatever the replicas and the policy say."""
    chosen = route(world.view, policy, replace(request, sticky=True), now, draw=scripted(numbers))
    reason = Reason.STICKY if len(world.view.nodes) > 1 else Reason.NO_REPLICAS
    expected = Route(leader(world.view), reason)
    assert chosen == (Route(None, Reason.OTHER_TIMELINE) if world.deposed(request, now) else expected)


@given(worlds(), requests, policies, moments, draws)
def test_a_route_leads_to_a_node_that_plays_the_part(
    world: World, request: Demand, policy: Policy, now: float, numbers: list[float]
) -> None:
    """`on_replica` is true for nodes in rotation and for no other; the rest is the primary or nobody."""
    chosen = route(world.view, policy, request, now, draw=scripted(numbers))
    if chosen.on_replica:
        assert chosen.node in {node.name for node in world.view.rotation}
    else:
        assert chosen.node in {None, leader(world.view)}


@given(worlds(), requests, policies, moments, draws)
def test_a_refusal_names_every_node_and_the_remedy(
    world: World, request: Demand, policy: Policy, now: float, numbers: list[float]
) -> None:
    """Whoever reads the error knows how each node stands and what to do; it is NoReplica only if there is a primary."""
    chosen = route(world.view, policy, request, now, draw=scripted(numbers))
    if chosen.node is not None:
        return
    error = refusal(world.view, policy, chosen, now, deposed=world.deposed(request, now))
    assert isinstance(error, NoReplica if world.led and not world.deposed(request, now) else NoPrimary)
    for node in world.view.nodes:
        assert f"{node.name}: " in str(error)
    assert any(remedy in str(error) for remedy in ("Wait for", "Stop one", "Retry"))


# An expired position.


@pytest.mark.parametrize(
    ("timeline", "floor", "expired", "expected"),
    [
        (2, 50, False, Route("primary", Reason.NONE_CAUGHT_UP)),
        (2, 50, True, Route("replica-1", Reason.FRESH, on_replica=True)),
        (2, 40, True, Route("replica-1", Reason.CAUGHT_UP, on_replica=True)),
        (2, 41, True, Route("primary", Reason.NONE_CAUGHT_UP)),
        (1, 50, False, Route("primary", Reason.OTHER_TIMELINE)),
        (1, 50, True, Route("replica-1", Reason.FRESH, on_replica=True)),
    ],
    ids=[
        "future",
        "future, expired",
        "reached, expired",
        "not reached, expired",
        "old line",
        "old line, expired",
    ],
)
def test_expiry_drops_only_what_cannot_be_reached(timeline: int, floor: int, expired: bool, expected: Route) -> None:
    """A position never written, or of a lost timeline, ends with its window; one that is right stays right."""
    view = after(
        [primary(40, 8.0, timeline=2), replica("replica-1", 40, timeline=2)],
        [primary(45, 9.0, timeline=2), replica("replica-1", 40, timeline=2)],
    )
    request = Demand(timeline=timeline, floor=LSN(floor), expired=expired)
    assert expected == route(view, Policy(), request, 9.0)


def test_an_expired_position_stays_a_floor_while_no_primary_is_in_sight() -> None:
    """Nobody can say that it was never written, so it is respected."""
    view = after([unreachable("primary"), replica("replica-1", 40)])
    request = Demand(timeline=1, floor=LSN(41), expired=True)
    assert route(view, Policy(), request, 10.0) == Route(None, Reason.NONE_CAUGHT_UP)


# A position of a later timeline: somebody was promoted.

SHAPES: dict[str, Demand] = {
    "read": Demand(timeline=2, floor=LSN(60)),
    "read, in doubt": Demand(timeline=2, floor=LSN(60), sticky=True),
    "strong": Demand(timeline=2, floor=LSN(60), strong=Reason.STRONG),
    "write": Demand(timeline=2, floor=LSN(60), write=True),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("alone", [False, True], ids=["with replicas", "without"])
def test_a_client_that_has_seen_a_later_timeline_is_not_sent_to_the_deposed_primary(shape: str, alone: bool) -> None:
    """Its token proves that somebody else was promoted: the primary in sight lacks its write. Nobody, not a miss."""
    others = [] if alone else [replica("replica-1", 90, 11.0), unreachable("replica-2")]
    view = after([primary(90, 9.0), *others])
    assert route(view, Policy(), SHAPES[shape], 10.0) == Route(None, Reason.OTHER_TIMELINE)


@pytest.mark.parametrize("late", ["primary", "replica-1", "replica-2"])
def test_nobody_serves_it_until_every_node_has_been_asked(late: str) -> None:
    """Any node that has not answered since the session opened may be the one that was promoted."""
    at = {"primary": 10.0, "replica-1": 10.0, "replica-2": 10.0, late: 9.9}
    others = [replica(name, 90, at[name]) for name in ("replica-1", "replica-2")]
    view = after([primary(90, at["primary"]), *others])
    for request in SHAPES.values():
        assert route(view, Policy(), request, 10.0) == Route(None, Reason.OTHER_TIMELINE)


@pytest.mark.parametrize(
    ("shape", "reason"),
    [("read", "other-timeline"), ("read, in doubt", "sticky"), ("strong", "strong"), ("write", "write")],
)
def test_a_timeline_that_nobody_is_on_any_more_is_lost(shape: str, reason: str) -> None:
    """Every node has answered since the session opened: the promoted one was undone, and the primary is the primary."""
    view = after([primary(90, 10.0), replica("replica-1", 90, 10.0)])
    assert route(view, Policy(), SHAPES[shape], 10.0) == Route("primary", Reason(reason))


@pytest.mark.parametrize("shape", SHAPES)
def test_once_somebody_is_seen_on_it_the_later_timeline_is_served(shape: str) -> None:
    """The promoted node has been heard from, whoever else has not: it leads, and its own positions count."""
    promoted = [primary(90, 9.0), primary(60, 9.0, name="replica-1", timeline=2), unreachable("replica-2")]
    assert route(after(promoted), Policy(), SHAPES[shape], 10.0).node == "replica-1"


# Every word has its case.

REPLICA = replica("replica-1", 40)
STALE = [[primary(40, 1.0), REPLICA], [primary(45, 2.0), REPLICA]]
CASES: dict[Reason, tuple[list[list[Node]], Demand, Route]] = {
    Reason.WRITE: ([[primary(40), REPLICA]], Demand(write=True), Route("primary", Reason.WRITE)),
    Reason.STRONG: ([[primary(40), REPLICA]], Demand(strong=Reason.STRONG), Route("primary", Reason.STRONG)),
    Reason.HELD_BACK: (
        [[primary(40, 9.0), REPLICA]],
        Demand(strong=Reason.HELD_BACK, timeline=1, floor=LSN(40)),
        Route("primary", Reason.HELD_BACK),
    ),
    Reason.NO_REPLICAS: ([[primary(40)]], Demand(), Route("primary", Reason.NO_REPLICAS)),
    Reason.CAUGHT_UP: (
        [[primary(40, 9.0), REPLICA]],
        Demand(timeline=1, floor=LSN(40)),
        Route("replica-1", Reason.CAUGHT_UP, on_replica=True),
    ),
    Reason.FRESH: ([[primary(40, 9.0), REPLICA]], Demand(), Route("replica-1", Reason.FRESH, on_replica=True)),
    Reason.STICKY: ([[primary(40, 9.0), REPLICA]], Demand(sticky=True), Route("primary", Reason.STICKY)),
    Reason.OTHER_TIMELINE: (
        [[primary(40, 9.0, timeline=2), replica("replica-1", 40, timeline=2)]],
        Demand(timeline=1, floor=LSN(30)),
        Route("primary", Reason.OTHER_TIMELINE),
    ),
    Reason.NONE_CAUGHT_UP: (
        [[primary(40, 8.0), REPLICA], [primary(45, 9.0), REPLICA]],
        Demand(timeline=1, floor=LSN(41)),
        Route("primary", Reason.NONE_CAUGHT_UP),
    ),
    Reason.ALL_LAGGING: (STALE, Demand(), Route("primary", Reason.ALL_LAGGING)),
    Reason.NONE_IN_ROTATION: (
        [[primary(40, 9.0), unreachable("replica-1")]],
        Demand(),
        Route("primary", Reason.NONE_IN_ROTATION),
    ),
    Reason.NO_PRIMARY: (
        [[unreachable("primary"), REPLICA]],
        Demand(),
        Route("replica-1", Reason.NO_PRIMARY, on_replica=True),
    ),
}


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_has_a_case(reason: Reason) -> None:
    """No word is for show: each is the answer to a situation, at ten seconds."""
    rounds, request, expected = CASES[reason]
    assert expected == route(after(*rounds), Policy(), request, 10.0)


@pytest.mark.parametrize("floor", [40, 41])
def test_the_word_for_a_bound_that_fails_is_all_lagging(floor: int) -> None:
    """Caught up or not, what helps is a newer sample of the primary: `none-caught-up` asks the replicas alone."""
    request = Demand(timeline=1, floor=LSN(floor))
    assert route(after(*STALE), Policy(), request, 10.0) == Route("primary", Reason.ALL_LAGGING)


@pytest.mark.parametrize("reason", Reason)
def test_waiting_is_for_what_a_newer_reading_can_change(reason: Reason) -> None:
    """A read waits for catch-up where a replica may still qualify, and nowhere else."""
    assert reason.may_improve == (reason in {"none-caught-up", "all-lagging", "other-timeline"})


@pytest.mark.parametrize("reason", Reason)
def test_only_reads_for_want_of_a_replica_count_as_fallen_back(reason: Reason) -> None:
    """Writes, strong reads and clients in doubt belong on the primary; the rest is what a limit may refuse."""
    assert not reason.may_improve or reason in {"none-caught-up", "all-lagging", "other-timeline"}


def test_a_route_reads_as_the_debug_header_shows_it() -> None:
    """Node first, then the word; nobody is nobody."""
    assert str(Route("replica-1", Reason.CAUGHT_UP, on_replica=True)) == "replica-1; reason=caught-up"
    assert str(Route(None, Reason.WRITE)) == "none; reason=write"


# Without a primary.


@pytest.mark.parametrize(
    ("without_primary", "request_", "now", "expected"),
    [
        ("serve", Demand(), 10.0, Route("replica-1", Reason.NO_PRIMARY, on_replica=True)),
        ("refuse", Demand(), 10.0, Route(None, Reason.NO_PRIMARY)),
        ("serve", Demand(max_staleness=1.0), 10.0, Route(None, Reason.ALL_LAGGING)),
        ("serve", Demand(timeline=1, floor=LSN(41)), 10.0, Route(None, Reason.NONE_CAUGHT_UP)),
        ("serve", Demand(timeline=1, floor=LSN(40)), 10.0, Route("replica-1", Reason.NO_PRIMARY, on_replica=True)),
        # A floor is a floor; but a token does not lift a bound that this read asks for.
        ("refuse", Demand(timeline=1, floor=LSN(41)), 10.0, Route(None, Reason.NONE_CAUGHT_UP)),
        ("refuse", Demand(timeline=1, floor=LSN(40)), 10.0, Route("replica-1", Reason.NO_PRIMARY, on_replica=True)),
        ("refuse", Demand(timeline=1, floor=LSN(40), max_staleness=1.0), 10.0, Route(None, Reason.ALL_LAGGING)),
        (
            "refuse",
            Demand(timeline=1, floor=LSN(40), max_staleness=5.0),
            6.0,
            Route("replica-1", Reason.CAUGHT_UP, on_replica=True),
        ),
        ("serve", Demand(timeline=1, floor=LSN(40), max_staleness=1.0), 10.0, Route(None, Reason.ALL_LAGGING)),
        ("serve", Demand(write=True), 10.0, Route(None, Reason.WRITE)),
        ("serve", Demand(strong=Reason.STRONG), 10.0, Route(None, Reason.STRONG)),
        ("serve", Demand(strong=Reason.HELD_BACK), 10.0, Route(None, Reason.HELD_BACK)),
        ("serve", Demand(sticky=True), 10.0, Route(None, Reason.STICKY)),
    ],
)
def test_without_a_primary_the_policy_decides(
    without_primary: Literal["serve", "refuse"], request_: Demand, now: float, expected: Route
) -> None:
    """Serve what can be served, or refuse; what needs the primary is refused either way."""
    view = after([primary(40, 1.0), REPLICA], [unreachable("primary"), REPLICA])
    policy = Policy(without_primary=without_primary)
    assert expected == route(view, policy, request_, now)


def test_between_rivals_on_one_timeline_nobody_serves() -> None:
    """Two nodes were promoted to timeline 2; the replica follows one of them, the client wrote on the other.

    60 replayed of one log are not 50 of the other's: while both are seen no position proves anything.
    """
    rivals = [primary(50, 9.0, timeline=2), primary(60, 9.0, name="other", timeline=2)]
    view = after([*rivals, replica("replica-1", 60, timeline=2)])
    for request in (Demand(timeline=2, floor=LSN(50)), Demand(), Demand(write=True), Demand(sticky=True)):
        assert route(view, Policy(), request, 10.0).node is None


def test_a_bound_that_can_still_be_proven_is_kept_without_a_primary() -> None:
    """For some seconds after its loss the last sample still bounds the staleness, whatever the policy."""
    view = after([primary(40, 8.0), REPLICA], [unreachable("primary"), REPLICA])
    expected = Route("replica-1", Reason.FRESH, on_replica=True)
    assert expected == route(view, Policy(without_primary="refuse"), Demand(max_staleness=3.0), 10.0)


@pytest.mark.parametrize("node", [primary(40), replica("primary", 40), unreachable("primary")])
@pytest.mark.parametrize("request_", [Demand(), Demand(timeline=1, floor=LSN(99)), Demand(sticky=True)])
def test_zero_replicas_read_where_they_write(node: Node, request_: Demand) -> None:
    """Development needs no replica: the one node serves, if it is a primary, also with fall_back=False."""
    view = after([primary(30)], [node])
    expected = Route(leader(view), Reason.NO_REPLICAS)
    assert expected == route(view, Policy(fall_back=False), request_, 1.0)
    assert (leader(view) == "primary") == (node.reading is not None and node.reading.role is Role.PRIMARY)


# Power of two choices, exactly: every pair of draws, each of the same probability.


def cells(weights: list[int]) -> list[float]:
    """One draw from the middle of each unit of weight."""
    return [(unit + 0.5) / sum(weights) for unit in range(sum(weights))]


def node_of(view: View, load: Callable[[str], float], pair: list[float]) -> str:
    """Where a read goes for these two draws."""
    chosen = route(view, Policy(), Demand(), 1.0, draw=scripted(pair))
    assert chosen.node is not None
    loads = [load(name) / view.node(name).weight for name in (chosen.node, chosen.rival or chosen.node)]
    chosen = less_loaded(chosen, *loads)
    assert chosen.node is not None
    return chosen.node


def choices(view: View, weights: list[int], load: Callable[[str], float]) -> Iterator[str]:
    """Where reads go for every pair of draws."""
    for pair in product(cells(weights), repeat=2):
        yield node_of(view, load, list(pair))


weighted = st.lists(st.integers(1, 4), min_size=2, max_size=4)


@given(weighted)
def test_weights_are_shares(weights: list[int]) -> None:
    """Among idle replicas a weight of two takes exactly twice what a weight of one takes."""
    others = [replica(f"replica-{n}", 40, weight=weight) for n, weight in enumerate(weights, 1)]
    taken = Counter(choices(after([primary(40, 1.0), *others]), weights, lambda _: 0.0))
    assert {f"replica-{n}": weight * sum(weights) for n, weight in enumerate(weights, 1)} == taken


@given(weighted.flatmap(lambda weights: st.tuples(st.just(weights), st.permutations(range(len(weights))))))
def test_the_less_loaded_of_two_is_taken(drawn: tuple[list[int], list[int]]) -> None:
    """With loads all different for their weight: the busiest serves only where it was drawn twice."""
    weights, ranks = drawn
    names = [f"replica-{n}" for n in range(len(weights))]
    busy = {name: float(rank * weight) for name, rank, weight in zip(names, ranks, weights, strict=True)}
    others = [replica(name, 40, weight=weight) for name, weight in zip(names, weights, strict=True)]
    taken = Counter(choices(after([primary(40, 1.0), *others]), weights, busy.__getitem__))
    for name, rank, weight in zip(names, ranks, weights, strict=True):
        busier = sum(other for other, at in zip(weights, ranks, strict=True) if at > rank)
        # Drawn twice, or drawn together with any of the busier ones, in either order.
        assert taken[name] == weight * weight + 2 * weight * busier


def test_load_counts_for_its_weight() -> None:
    """Three sessions on a replica of weight three are as many as one on a replica of weight one."""
    view = after([primary(40, 1.0), replica("strong", 40, weight=3), replica("weak", 40)])
    loads = {"strong": 3.0, "weak": 1.1}
    assert node_of(view, loads.__getitem__, [0.1, 0.9]) == "strong"
    loads["strong"] = 3.4
    assert node_of(view, loads.__getitem__, [0.1, 0.9]) == "weak"


@given(worlds(), ordinary, policies, moments, st.lists(st.sampled_from([0.0, 1 - 2**-53]), min_size=2, max_size=2))
def test_the_ends_of_the_draw_stay_among_those_that_qualify(
    world: World, request: Demand, policy: Policy, now: float, numbers: list[float]
) -> None:
    """The least and the greatest number a random source answers never reach past the prefix."""
    chosen = route(world.view, policy, request, now, draw=scripted(numbers))
    if chosen.on_replica:
        assert chosen.node in world.qualified(request, inf, now)


def test_one_replica_needs_no_draw() -> None:
    """The common case costs no random number."""
    view = after([primary(40, 1.0), replica("replica-1", 40)])
    assert route(view, Policy(), Demand(), 1.0, draw=scripted([])).node == "replica-1"


def test_routes_are_shared_and_those_kept_are_bounded() -> None:
    """Equal decisions are one value; among more replicas than any bound covers, no more are kept than the bound."""
    view = after([primary(40, 1.0), *(replica(f"replica-{number}", 40) for number in range(100))])
    drawn = [((one + 0.5) / 100, (other + 0.5) / 100) for one, other in product(range(100), repeat=2)]
    found = {route(view, Policy(), Demand(), 1.0, draw=scripted([*each])) for each in drawn}
    assert len(found) == 100  # the rival is not compared
    assert _shared.cache_info().currsize == _shared.cache_info().maxsize == 4096
    again = [route(view, Policy(), Demand(), 1.0, draw=scripted([0.5, 0.7])) for _ in range(2)]
    assert again[0] is again[1]


# Refusals, word by word.


def test_a_refusal_says_why_each_node_does_not_qualify() -> None:
    """Standing, staleness and the class of the last error; never a text that could hold a host or a password."""
    view = after(
        [
            primary(45, 9.0),
            replica("slow", 40),
            replica("spare", 45, drained=True),
            unreachable("gone", "ConnectionRefusedError"),
        ]
    )
    view = View.of([replace(node, fresh_at=2.5) if node.name == "slow" else node for node in view.nodes], view)
    policy = Policy(fall_back=False)
    chosen = route(view, policy, Demand(), 10.0)
    assert str(refusal(view, policy, chosen, 10.0)) == (
        "no replica may serve this read (all-lagging) and fall_back is False. primary: primary; slow: lagging, "
        "staleness not known; spare: drained; gone: unreachable (refused, ConnectionRefusedError). "
        "Wait for a replica to catch up, or set Policy(fall_back=True)."
    )


def test_a_refusal_says_where_the_read_has_failed() -> None:
    """A replica that is in rotation still, and that this read does not use again, is not shown as if it were fit."""
    view, policy = after([primary(45), replica("replica-1", 45)]), Policy(fall_back=False)
    failed = frozenset({"replica-1"})
    chosen = route(view.without(failed), policy, Demand(), 10.0)
    said = str(refusal(view, policy, chosen, 10.0, failed=failed))
    assert "primary: primary; replica-1: this read has failed there." in said


@pytest.mark.parametrize("fall_back", [False, True])
def test_a_write_after_a_promotion_elsewhere_is_refused_as_one(fall_back: bool) -> None:
    """No setting for reads is blamed: the primary in sight is not the one that this client has written on."""
    view, policy = after([primary(45), replica("replica-1", 45)]), Policy(fall_back=fall_back)
    demand = Demand(write=True, timeline=view.timeline + 1, floor=LSN(40))
    error = refusal(view, policy, route(view, policy, demand, 10.0), 10.0, deposed=deposed(view, demand, 10.0))
    assert isinstance(error, NoPrimary)
    assert "another node was promoted, and cannot be reached" in str(error)


def test_a_refusal_without_a_primary_says_when_to_come_back() -> None:
    """NoPrimary: what is down, by class of error, and to retry."""
    view = after([unreachable("primary", "TimeoutError"), replica("replica-1", 40)])
    error = refusal(view, Policy(), route(view, Policy(), Demand(write=True), 10.0), 10.0)
    assert isinstance(error, NoPrimary)
    assert str(error) == (
        "no primary can be reached (write). primary: unreachable (refused, TimeoutError); "
        "replica-1: lagging, staleness not known. Retry when the failover is over."
    )


def test_a_refusal_for_rivals_says_to_stop_one() -> None:
    """Two primaries on one timeline are a person's problem; the message says which two."""
    view = after([primary(40), primary(41, name="replica-1")])
    error = refusal(view, Policy(), route(view, Policy(), Demand(write=True), 10.0), 10.0)
    assert isinstance(error, NoPrimary)
    assert "two nodes say that they are the primary" in str(error)
    assert "primary: rival-primary; replica-1: rival-primary" in str(error)
    assert "Stop one of them." in str(error)
