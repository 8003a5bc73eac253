"""What replicas would have done for reads that are held back from them, and what a naive split would have missed."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from lagwise._decide.events import Event
from lagwise._decide.lsn import LSN
from lagwise._decide.node import Node, Reading, Role, Standing
from lagwise._decide.route import Demand, Reason, Route
from lagwise._decide.view import View

# A reading that was taken so soon after a read, seconds, says what the read would have found.
_PROMPT = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldBack(Event):
    """A read that the primary served, its client being held back, was judged; a moment after its `Routed`.

    Attributes:
        would: where it would have gone; without a node where it would have been refused.
        waited: whether it would have waited for a replica.
        stale: how likely a naive split would have shown it a state before its own client's latest write, 0 to 1.
    """

    __module__ = "lagwise.events"

    would: Route
    waited: bool
    stale: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Shadow:
    """What would have become of the reads that were held back; counts since the Router was made.

    Attributes:
        reads: how many were held back and judged.
        on_replicas: those that a replica would have served, at once or after a wait.
        would_wait: those that would have waited for a replica, up to `catch_up`.
        in_time: those of them that a replica would then have served.
        on_primary: those that the primary would have served all the same, or that would have been refused, by the
            reason why no replica would do.
        naively_stale: how many of them a naive split, which draws any replica, would have shown a state before their
            own client's latest write: an expected number.
        unjudged: how many more were held back, while too many were being judged.
    """

    reads: int = 0
    on_replicas: int = 0
    would_wait: int = 0
    in_time: int = 0
    on_primary: Mapping[Reason, int] = field(default_factory=dict)
    naively_stale: float = 0.0
    unjudged: int = 0

    @property
    def share(self) -> float:
        """The share of the reads that replicas would have served, 0 to 1; 0 before the first."""
        return self.on_replicas / self.reads if self.reads else 0.0

    def counting(self, would: Route, stale: float, *, waited: bool) -> "Shadow":
        """The same with one more read: where it would have gone, whether after a wait, and how likely stale."""
        served = would.on_replica
        others = self.on_primary
        if not served:
            others = {**others, would.reason: others.get(would.reason, 0) + 1}
        return Shadow(
            reads=self.reads + 1,
            on_replicas=self.on_replicas + served,
            would_wait=self.would_wait + waited,
            in_time=self.in_time + (served and waited),
            on_primary=others,
            naively_stale=self.naively_stale + stale,
            unjudged=self.unjudged,
        )

    def passing_over(self) -> "Shadow":
        """The same with one more read that is not judged."""
        return replace(self, unjudged=self.unjudged + 1)


def lacking(view: View, demand: Demand) -> list[tuple[Node, float]]:
    """The replicas that lack the client's position, as last read, each with its share of a naive split's reads.

    Also those that lagwise has taken out of rotation: a naive split does not.
    """
    if not demand.timeline:
        return []
    position = (demand.timeline, demand.floor)
    replicas = [(node, node.reading) for node in view.nodes if node.standing is not Standing.SAME_SERVER]
    known = [
        (node, reading)
        for node, reading in replicas
        if reading is not None and reading.role is Role.REPLICA and reading.system == view.system
    ]
    total = sum(node.weight for node, _ in known)
    return [(node, node.weight / total) for node, reading in known if (reading.timeline, reading.lsn) < position]


def lacked(before: Reading, after: Reading, timeline: int, floor: LSN, moment: float) -> bool:
    """Whether a replica lacked this position at `moment`, between two of its readings; `before` lacks it.

    What is replayed grows. Where the later reading has the position and was not taken at once, the position was reached
    when the log between the two readings was replayed up to there, in proportion to time.
    """
    if (after.timeline, after.lsn) < (timeline, floor):
        return True
    if after.timeline != before.timeline or after.at - moment <= _PROMPT:
        return False
    part = (floor - before.lsn) / (after.lsn - before.lsn)
    return moment < before.at + part * (after.at - before.at)
