"""Health asks the router: what is said to be served now is what a session would meet, under every policy."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lagwise import Policy
from lagwise._decide.route import Demand, route, serves
from lagwise._decide.view import View
from tests.kit.worlds import primary, replica, seen, unreachable

leaders = st.one_of(
    st.just(unreachable("primary")),
    st.builds(primary, st.integers(1, 9), timeline=st.sampled_from([1, 1, 2])),
    st.just(replica("primary", 5)),
)
others = st.one_of(
    st.just(unreachable("?")),
    st.builds(
        replica, st.just("?"), st.integers(1, 9), timeline=st.sampled_from([1, 1, 2]), drained=st.booleans()
    ),
    st.builds(primary, st.integers(1, 9), name=st.just("?"), timeline=st.sampled_from([1, 2])),
)  # fmt: skip
fleets = st.tuples(leaders, st.lists(others, max_size=3)).map(
    lambda drawn: [drawn[0], *(replace(node, name=f"replica-{number}") for number, node in enumerate(drawn[1], 1))]
)
views = st.lists(fleets, min_size=1, max_size=4).map(lambda rounds: seen(*rounds))
policies = st.builds(
    Policy,
    max_lag=st.sampled_from([1.0, 3.0]),
    fall_back=st.booleans(),
    fall_back_limit=st.sampled_from([None, 0, 1, 3]),
    without_primary=st.sampled_from(["serve", "refuse"]),
)


def met(view: View, policy: Policy, demand: Demand, now: float, fallen_back: int) -> bool:
    """Whether a session is opened: it has a node, and a place there."""
    chosen = route(view, policy, demand, now)
    if chosen.node is None:
        return False
    in_their_place = not chosen.on_replica and not demand.write and not view.alone
    return not in_their_place or policy.fall_back_limit is None or fallen_back < policy.fall_back_limit


@given(views, policies, st.booleans(), st.floats(0, 9), st.integers(0, 4))
def test_what_is_said_to_be_served_is(view: View, policy: Policy, write: bool, now: float, fallen_back: int) -> None:
    """A read without a token, or a write; the limit of reads on the primary included, used up or 0."""
    demand = Demand(write=write)
    assert met(view, policy, demand, now, fallen_back) == serves(view, policy, demand, now, fallen_back)


@pytest.mark.parametrize(
    ("limit", "fallen_back", "expected"), [(None, 9, True), (0, 0, False), (1, 0, True), (1, 1, False)]
)
def test_a_limit_that_is_used_up_serves_no_further_read(limit: int | None, fallen_back: int, expected: bool) -> None:
    """Replicas are gone and the primary is well: it takes as many reads as the policy lets it, and any write."""
    view, policy = seen([primary(5), unreachable("replica-1")]), Policy(fall_back_limit=limit)
    assert expected == serves(view, policy, Demand(), 0.0, fallen_back)
    assert serves(view, policy, Demand(write=True), 0.0, fallen_back)


def test_without_replicas_no_read_has_fallen_back() -> None:
    """The limit is for reads that should have been a replica's."""
    assert serves(seen([primary(5)]), Policy(fall_back_limit=0, fall_back=False), Demand(), 0.0, 0)
