"""The events that follow from a change between two Views."""

from collections.abc import Iterator
from dataclasses import dataclass

from lagwise._decide.events import (
    BeliefContradicted,
    ClusterChanged,
    ClusterUnconfirmed,
    Event,
    NodeChanged,
    Promoted,
    TimelineAbandoned,
    TwoPrimaries,
)
from lagwise._decide.node import Standing
from lagwise._decide.view import View


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseChanged(Event):
    """The application's database is another one than was believed: it was made anew, or renamed.

    Attributes:
        believed, database: its OID until now, and now.
    """

    __module__ = "lagwise.events"

    believed: int
    database: int


def news(before: View, now: View) -> Iterator[Event]:
    """The events of the changes between two Views, by the nodes' names; a View may have other nodes than before."""
    was = {node.name: node.standing for node in before.nodes}
    for node in now.nodes:
        known = was.get(node.name)
        if known is not node.standing:
            yield NodeChanged(
                node=node.name,
                before=str(known) if known is not None else None,
                standing=str(node.standing),
                error=node.error,
            )
    if _promoted(before, now) and now.leader is not None and before.leader is not None:
        yield Promoted(node=now.leader[0], before=before.leader[0], timeline=now.timeline)
    rivals = _standing(now, Standing.RIVAL_PRIMARY)
    if len(rivals) > 1 and now.primary is None and rivals != _standing(before, Standing.RIVAL_PRIMARY):
        yield TwoPrimaries(nodes=rivals)
    alone = _standing(now, Standing.UNCONFIRMED)
    if alone and alone != _standing(before, Standing.UNCONFIRMED):
        yield ClusterUnconfirmed(nodes=alone, system=now.system)
    if before.system and now.system != before.system:
        yield ClusterChanged(believed=before.system, system=now.system)
    elif now.timeline < before.timeline:
        yield TimelineAbandoned(believed=before.timeline, timeline=now.timeline)
    if now.system == before.system and before.database.oid not in {0, now.database.oid}:
        yield DatabaseChanged(believed=before.database.oid, database=now.database.oid)
    contradiction = now.identity.contradiction
    if contradiction is not None and before.identity.contradiction is None:
        yield BeliefContradicted(
            believed=now.identity.line,
            said=(contradiction.system, contradiction.timeline),
            for_seconds=now.terms.patience,
        )


def _promoted(before: View, now: View) -> bool:
    # That a promotion was undone, or a cluster put in another's place, are events of their own.
    return before.leader != now.leader and now.system == before.system and now.timeline >= before.timeline


def _standing(view: View, standing: Standing) -> tuple[str, ...]:
    return tuple(node.name for node in view.nodes if node.standing is standing)
