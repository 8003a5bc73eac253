"""The way of a request through the house: how many functions, how many files, and which calls climb."""

import pytest

from lagwise.testing import Cluster
from tests.kit.walk import Call, Walk, walk_requests, walked

# Calls, files and climbs at most, with CPython 3.11: lower them with every wall that is taken out.
BUDGET = {"GET with a token": (76, 22, 0), "POST": (126, 28, 0)}


async def test_the_walk_of_a_request(cluster: Cluster) -> None:
    """A GET with a token and a POST walk no further than their budget: raise it knowingly, or not at all."""
    walks = await walk_requests(cluster)
    for kind, (calls, files, climbs) in BUDGET.items():
        walk = walks[kind]
        told = "\n".join([f"{kind}: {walk}", *map(str, walk.calls), "climbs:", *map(str, walk.climbs)])
        assert len(walk.calls) <= calls, told
        assert len(walk.files) <= files, told
        assert len(walk.climbs) <= climbs, told


@pytest.mark.parametrize(
    ("callee", "caller", "climbs"),
    [
        ("lagwise.router", "lagwise._pools.engine", True),
        ("lagwise._nodes.monitor", "lagwise._decide.view", True),
        ("lagwise._decide.route", "lagwise._nodes.choose", False),
        ("lagwise._pools.engine", "lagwise._pools.pools", False),
        ("lagwise.health", "lagwise.asgi", False),
    ],
)
def test_a_climb_is_a_call_into_a_higher_layer(callee: str, caller: str, climbs: bool) -> None:
    """By the layers of the contract; within one layer nothing climbs."""
    call = Call(callee, "called", caller, "calls")
    assert Walk([call]).climbs == ([call] if climbs else [])


def test_a_coroutine_that_goes_on_is_one_call() -> None:
    """What waits and is resumed, and what the test cluster does, is not counted again or at all."""
    from lagwise._decide.token import CausalToken

    with walked() as walk:
        assert not list(CausalToken())
        assert not CausalToken()
    assert {call.module for call in walk.calls} == {"lagwise._decide.token"}
    assert len(walk.calls) <= 2
