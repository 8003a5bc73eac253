"""Which cluster, and which of its timelines, is believed to be ours; what confirms that, and what ends the belief.

Two mistakes are possible. Believing a server of another environment sends the application's writes there. Not believing
our own nodes stops the application. So a belief needs a confirmation, and ends when the nodes contradict it for long.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import Self

from lagwise._decide.node import Node, Reading, Role, second_names
from lagwise._decide.token import SKEW
from lagwise._given import instead
from lagwise.policy import Policy

_PROBES = 5  # probes, each with its time-out, that a contradiction must outlast: a failover shows within one or two


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """The settings of a Router that decide how its nodes are judged.

    Attributes:
        pinned: the system identifier that was configured; 0 for none.
        patience: seconds for which every node must contradict what is believed before belief gives way.
        max_lag: seconds beyond which a replica is shown as lagging.
    """

    pinned: int = 0
    patience: float = inf
    max_lag: float = inf

    @classmethod
    def of(cls, policy: Policy, system: int | str | None = None) -> Self:
        """The terms of a policy, and of a system identifier as `pg_controldata` or `pg_control_system()` print it.

        Raises:
            ValueError: `system` is not a whole number of 64 bits, or 0.
        """
        return cls(
            pinned=0 if system is None else system_identifier(system),
            patience=max(policy.sticky_window, _PROBES * (policy.probe_interval + policy.probe_timeout)),
            max_lag=policy.max_lag,
        )


def system_identifier(system: int | str) -> int:
    """The identifier as an unsigned number; SQL shows it as a signed one. Raises `ValueError`.

    >>> system_identifier("7432109876543210987")
    7432109876543210987
    """
    text = str(system).strip()
    number = (
        int(text) if text.removeprefix("-").isascii() and text.removeprefix("-").isdecimal() and len(text) <= 20 else 0
    )
    if isinstance(system, bool) or number == 0 or not -(1 << 63) <= number < 1 << 64:
        raise ValueError(
            "system must be the cluster's system identifier, a 64-bit number as pg_controldata shows it"
            + instead(system)
        )
    return number % (1 << 64)


@dataclass(frozen=True, slots=True)
class Contradiction:
    """What the nodes say instead of what is believed, and since when all of them do (monotonic seconds)."""

    system: int
    timeline: int
    since: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """The cluster and the timeline that positions are compared in.

    Attributes:
        sure: a pin, the node configured as primary, or a majority of the nodes confirms `system`; until then nothing
            is written.
        leaders: the nodes that have been seen as a primary on this timeline: its acknowledged writes are there.
        contradiction: what every node says instead.
        abandoned: the timeline of this cluster that was believed until the nodes had denied it for long enough; 0.
        suspect_until: positions that clients bring may be of what was abandoned until then, monotonic seconds.
    """

    system: int = 0
    timeline: int = 0
    sure: bool = False
    leaders: frozenset[str] = frozenset()
    contradiction: Contradiction | None = None
    abandoned: int = 0
    suspect_until: float = -inf

    @property
    def line(self) -> tuple[int, int]:
        """What positions must have in common to be comparable."""
        return self.system, self.timeline


NOTHING, NO_TERMS = Identity(), Terms()


def believe(nodes: Sequence[Node], before: Identity, terms: Terms) -> tuple[Identity, Node | None]:
    """What to believe after these readings, and the one primary, if there is one.

    `nodes` are in the order of the configuration: the first is the one configured as primary. Pure: time is that of
    the readings, so that a process that was stopped does not take its own silence for the nodes' agreement.
    """
    others = second_names(nodes)
    voices = [node for node in nodes if node.reading is not None and node.name not in others]
    system, sure = _cluster(nodes, voices, before, terms)
    known = before if system == before.system else Identity(system=system)
    known = _given_way(nodes, voices, replace(known, sure=sure), terms)
    claims = claimants(voices, known)
    primary = claims[0] if sure and len(claims) == 1 else None
    if primary is not None and primary.reading is not None:
        timeline = primary.reading.timeline
    else:
        # A lone node that no replica follows does not confirm a newer timeline.
        followed = [each.timeline for each in _own(voices, known.system) if each.role is Role.REPLICA]
        timeline = max([known.timeline, *followed])
    if timeline != known.timeline:
        known = replace(known, timeline=timeline, leaders=frozenset(), contradiction=None)
    leaders = {
        node.name for node in voices if node.reading is not None and node.reading.role is Role.PRIMARY
        and (node.reading.system, node.reading.timeline) == known.line
    }  # fmt: skip
    names = {node.name for node in nodes}
    return replace(known, leaders=(known.leaders & names) | leaders), primary


def claimants(voices: Sequence[Node], known: Identity) -> list[Node]:
    """The nodes that may be the primary: those on the latest timeline that any node of this cluster has reported.

    A primary of another cluster is no candidate, whatever its timeline. Neither is a node below the latest timeline
    that was seen here or that a replica reports: it is the old primary that has come back.
    """
    own = _own(voices, known.system)
    latest = max([known.timeline, *(reading.timeline for reading in own)], default=0)
    return [
        node for node in voices if node.reading is not None and node.reading.role is Role.PRIMARY
        and (node.reading.system, node.reading.timeline) == (known.system, latest)
    ]  # fmt: skip


def _cluster(nodes: Sequence[Node], voices: Sequence[Node], known: Identity, terms: Terms) -> tuple[int, bool]:
    """Which cluster is ours, and whether that is sure.

    A pin; else what is sure already; else the word of the node configured as primary; else that of a majority of the
    configured nodes, those that do not answer included. Until one of these has spoken, the only cluster that answers
    is taken for ours, for reads alone: the one node of another environment that a wrong URL leads to, and the
    promoted node that alone answers in the middle of a failover, look the same.
    """
    if terms.pinned:
        return terms.pinned, True
    if known.sure:
        return known.system, True
    if nodes and nodes[0].reading is not None:
        return nodes[0].reading.system, True
    systems = [node.reading.system for node in voices if node.reading is not None]
    for system in systems:
        if 2 * systems.count(system) > len(nodes):
            return system, True
    if known.system in systems or not systems:
        return known.system, False
    return (systems[0] if len({*systems}) == 1 else 0), False


def _given_way(nodes: Sequence[Node], voices: Sequence[Node], before: Identity, terms: Terms) -> Identity:
    """The belief, with its contradiction while every node says it; another belief when that has lasted long enough."""
    said = _said_instead(nodes, voices, before, terms)
    if said is None:
        return replace(before, contradiction=None) if before.contradiction is not None else before
    contradiction = before.contradiction
    if contradiction is None or (contradiction.system, contradiction.timeline) != said:
        contradiction = Contradiction(*said, since=_latest(voices))
    earliest = min(node.reading.at for node in voices if node.reading is not None)
    if earliest < contradiction.since + terms.patience:
        return replace(before, contradiction=contradiction)
    system, timeline = said
    if system != before.system:
        return Identity(system=system, sure=True)
    # A client's position may be of the timeline that was given up, also when a later promotion takes the same number
    # again: positions are compared with nothing until such a one has expired.
    until = _latest(voices) + terms.patience + SKEW
    return Identity(system=system, timeline=timeline, sure=True, abandoned=before.timeline, suspect_until=until)


def _said_instead(
    nodes: Sequence[Node], voices: Sequence[Node], before: Identity, terms: Terms
) -> tuple[int, int] | None:
    """The system and the timeline that the nodes agree on against what is believed, if they do.

    Another cluster: a majority of the configured nodes answers as one, and none as ours. An earlier timeline: the
    same, and each node that was a primary on the later one is among those that deny it; where none was seen, each
    configured node must. A node that does not answer denies nothing: its writes were acknowledged. Nor does a timeline
    of 0: it is not known, as that of a lone node in recovery.
    """
    if not before.sure or 2 * len(voices) <= len(nodes):
        return None
    own = _own(voices, before.system)
    if not own:
        systems = {node.reading.system for node in voices if node.reading is not None}
        return (systems.pop(), 0) if len(systems) == 1 and not terms.pinned else None
    latest = max(reading.timeline for reading in own)
    if not 0 < latest < before.timeline or 2 * len(own) <= len(nodes):
        return None
    denying = {node.name for node in nodes if node.reading is not None and node.reading.system == before.system}
    needed = before.leaders & {node.name for node in nodes} or {node.name for node in nodes}
    return (before.system, latest) if needed <= denying else None


def _own(voices: Sequence[Node], system: int) -> list[Reading]:
    return [node.reading for node in voices if node.reading is not None and node.reading.system == system]


def _latest(voices: Sequence[Node]) -> float:
    return max((node.reading.at for node in voices if node.reading is not None), default=-inf)
