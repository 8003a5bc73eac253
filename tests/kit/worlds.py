"""Small worlds for the tests of this folder: nodes, readings, and the strategies that draw them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from hypothesis import strategies as st

from lagwise._decide.failure import Cause, Kind
from lagwise._decide.identity import Terms
from lagwise._decide.lsn import LSN
from lagwise._decide.token import CausalToken, Position
from lagwise._decide.view import Node, Reading, Role, View

SYSTEM = 7

lsns = st.integers(0, (1 << 64) - 1).map(LSN)
epochs = st.integers(0, (1 << 32) - 1)
systems = st.integers(0, (1 << 64) - 1)
timelines = st.integers(0, (1 << 32) - 1)


def positions(system: st.SearchStrategy[int] = systems) -> st.SearchStrategy[Position]:
    """Any position the text form can carry."""
    return st.builds(Position, system=system, timeline=timelines, lsn=lsns, issued_at=epochs, in_doubt_at=epochs)


def tokens(most: int = 5) -> st.SearchStrategy[CausalToken]:
    """Tokens of at most `most` databases out of five, so that merges meet the same ones."""
    few = st.sampled_from([0, 1, 2, (1 << 63), (1 << 64) - 1])
    seen = st.lists(positions(few), max_size=most).map(CausalToken.of)
    return st.builds(lambda token, at: token.crowded(at) if token else token, seen, st.just(0) | epochs)


def primary(lsn: int, at: float = 0.0, *, name: str = "primary", timeline: int = 1, system: int = SYSTEM) -> Node:
    """A node that says it is the primary."""
    return Node(name=name, reading=Reading(role=Role.PRIMARY, system=system, timeline=timeline, lsn=LSN(lsn), at=at))


def replica(
    name: str,
    lsn: int,
    at: float = 0.0,
    *,
    timeline: int = 1,
    system: int = SYSTEM,
    weight: float = 1.0,
    drained: bool = False,
) -> Node:
    """A node that says it is a replica."""
    reading = Reading(role=Role.REPLICA, system=system, timeline=timeline, lsn=LSN(lsn), at=at)
    return Node(name=name, weight=weight, reading=reading, drained=drained)


def unreachable(name: str, error: str = "ConnectionRefusedError") -> Node:
    """A node that did not answer."""
    return Node(name=name, cause=Cause(Kind.REFUSED, error))


def after(*rounds: list[Node]) -> View:
    """The View after the monitor has read these nodes, round after round."""
    view = None
    for nodes in rounds:
        view = View.of(nodes, view)
    assert view is not None
    return view


TERMS = Terms(patience=5.0, max_lag=5.0)


def seen(*rounds: list[Node], terms: Terms = TERMS) -> View:
    """The View after these rounds, one second apart, the first at 0."""
    view = None
    for at, nodes in enumerate(rounds):
        view = View.of(read(nodes, float(at)), view, terms)
    assert view is not None
    return view


def read(nodes: list[Node], at: float) -> list[Node]:
    """The same nodes, read at this moment."""
    return [replace(n, reading=replace(n.reading, at=at)) if n.reading is not None else n for n in nodes]


def leader(view: View) -> str | None:
    """The node that takes writes."""
    return view.primary.name if view.primary is not None else None


def turned(rounds: list[list[Node]], terms: Terms = TERMS) -> Iterator[View]:
    """The Views of these rounds, one second apart."""
    view = None
    for at, nodes in enumerate(rounds):
        view = View.of(read(nodes, float(at)), view, terms)
        yield view


def lasting(before: list[list[Node]], nodes: list[Node], seconds: int, terms: Terms = TERMS) -> View:
    """The View when the nodes have stood so for so many seconds."""
    return seen(*before, *[nodes] * (seconds + 1), terms=terms)
