"""What the errors promise: one base that handlers already catch, and names that are where they are imported from."""

from __future__ import annotations

import pickle

import pytest
from sqlalchemy.exc import SQLAlchemyError

import lagwise
from lagwise import InvalidToken, NoPrimary, NoReplica, NotOpen, ReadOnly, RoutingError

LEAVES = [InvalidToken, NoPrimary, NoReplica, NotOpen, ReadOnly]


@pytest.mark.parametrize("leaf", LEAVES)
def test_every_error_is_caught_by_the_handlers_there_are(leaf: type[RoutingError]) -> None:
    """One base, itself a SQLAlchemyError; no leaf catches another's."""
    assert (leaf, RoutingError) == leaf.__mro__[:2]
    assert issubclass(leaf, SQLAlchemyError)


@pytest.mark.parametrize("leaf", [*LEAVES, RoutingError])
def test_every_error_says_where_it_is_imported_from(leaf: type[RoutingError]) -> None:
    """Tracebacks show the public name, which exists, and an error crosses process boundaries."""
    assert f"lagwise.{leaf.__name__}" == f"{leaf.__module__}.{leaf.__qualname__}"
    assert getattr(lagwise, leaf.__name__) is leaf
    error = pickle.loads(pickle.dumps(leaf("why")))
    assert (leaf, "why") == (type(error), str(error))
