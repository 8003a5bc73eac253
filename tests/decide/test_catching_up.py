"""What a deployment waits for: the position that a token stands for, or what the primary has now."""

import pytest

from lagwise import LSN, CausalToken
from lagwise._decide.catching_up import target
from lagwise._decide.token import Position
from tests.kit.worlds import SYSTEM, after, primary, replica, unreachable

VIEW = after([primary(0x2000, 10.0), replica("replica-1", 0x2000, 10.0), unreachable("replica-2")])


def seen(timeline: int, *, doubt: int = 0) -> CausalToken:
    """A token of this cluster."""
    return CausalToken.of([Position(system=SYSTEM, timeline=timeline, lsn=LSN(0x1000), issued_at=9, in_doubt_at=doubt)])


@pytest.mark.parametrize("token", [seen(1, doubt=9), seen(1).crowded(9)], ids=["in doubt", "of a crowd"])
def test_what_is_not_exact_means_all_that_there_is(token: CausalToken) -> None:
    """The position alone is not all that its client was told of."""
    for asked, lsn in (seen(1), 0x1000), (token, 0x2000):
        found = target(VIEW, asked, 10.0)
        assert found is not None
        assert found.lsn == lsn


@pytest.mark.parametrize(
    "token", [seen(2), seen(2, doubt=9), seen(2).crowded(9)], ids=["exact", "in doubt", "of a crowd"]
)
def test_a_primary_that_is_deposed_is_not_asked(token: CausalToken) -> None:
    """Its timeline is later than any that was heard of: the node that is out of reach may have been promoted."""
    assert target(VIEW, token, 10.0) is None
