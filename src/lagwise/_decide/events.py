"""What happened, as frozen values: for the log and for the application's watcher."""

from collections.abc import Callable
from dataclasses import dataclass

from lagwise._decide.route import Route


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """The base of all events. They carry names, reasons and numbers; never a URL, a host or a password."""

    __module__ = "lagwise.events"


@dataclass(frozen=True, slots=True, kw_only=True)
class Routed(Event):
    """A session has got its node.

    Attributes:
        route: the node, the one word why, and whether it serves for want of a replica (`route.fell_back`).
        write: whether the session may write.
        waited: seconds the session waited for a better View; 0.0 when the node was known at once.
    """

    __module__ = "lagwise.events"

    route: Route
    write: bool
    waited: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused(Event):
    """No node may serve a session.

    Attributes:
        error: the class of the error that the session raises.
        write: whether the session may write.
        waited: seconds the session waited before it was refused.
    """

    __module__ = "lagwise.events"

    error: str
    write: bool
    waited: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Retried(Event):
    """A read has failed on a node and runs again.

    Attributes:
        node: the node it failed on.
        failure: the kind of failure.
    """

    __module__ = "lagwise.events"

    node: str
    failure: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PositionAsked(Event):
    """A commit has got its position, or has not.

    Attributes:
        node: the node that committed.
        found: whether its position is known; else the client reads from the primary for the window.
        seconds: how long the question took; None where the answer to COMMIT told the position, or nothing was asked.
        shared: whether the position is the answer to another commit's question.
    """

    __module__ = "lagwise.events"

    node: str
    found: bool
    seconds: float | None = None
    shared: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenBrought(Event):
    """A client brought a token of this application. Told when its request opens a session."""

    __module__ = "lagwise.events"


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenIssued(Event):
    """An answer carries a token: its client wrote, or saw, something in a session of this Router."""

    __module__ = "lagwise.events"


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenIgnored(Event):
    """A client brought a text that is no token of this application. Told when its request opens a session.

    Attributes:
        why: what is wrong with the text, without the text.
    """

    __module__ = "lagwise.events"

    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeChanged(Event):
    """A node's standing has changed.

    Attributes:
        node: its name.
        before: its standing until now; None for a node that is new.
        standing: its standing now.
        error: the class of the error that made it unreachable.
    """

    __module__ = "lagwise.events"

    node: str
    before: str | None
    standing: str
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeUnreachable(Event):
    """A node cannot be read. Told once, until the cause changes.

    Attributes:
        node: its name.
        error: why, in the server's own words, less hosts, ports, passwords and URLs.
    """

    __module__ = "lagwise.events"

    node: str
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeRefusesConnections(Event):
    """A node refuses new connections; lagwise uses those that it has accepted. Told once, until the cause changes.

    Attributes:
        node: its name.
        error: why, in the server's own words, less hosts, ports, passwords and URLs.
    """

    __module__ = "lagwise.events"

    node: str
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Promoted(Event):
    """A node was promoted: it is the primary on another timeline, or in another node's place.

    Attributes:
        node: the primary now.
        before: the primary until then; the same name where it was demoted and promoted again unseen.
        timeline: the timeline that it writes.
    """

    __module__ = "lagwise.events"

    node: str
    before: str
    timeline: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TwoPrimaries(Event):
    """Several nodes of one timeline say that they are the primary; none of them is used."""

    __module__ = "lagwise.events"

    nodes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterUnconfirmed(Event):
    """Nodes answer, and nothing confirms that they are of our cluster; none of them is used.

    Attributes:
        nodes: their names.
        system: the system identifier that is believed; 0 while there is none.
    """

    __module__ = "lagwise.events"

    nodes: tuple[str, ...]
    system: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterChanged(Event):
    """The nodes are of another cluster than was believed, and have said so for long enough.

    Attributes:
        believed, system: the system identifier until now, and now.
    """

    __module__ = "lagwise.events"

    believed: int
    system: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TimelineAbandoned(Event):
    """A promotion was undone: the nodes have long been on an earlier timeline than was believed.

    Attributes:
        believed, timeline: the timeline until now, and now.
    """

    __module__ = "lagwise.events"

    believed: int
    timeline: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BeliefContradicted(Event):
    """Every node that answers contradicts what is believed of the cluster.

    Attributes:
        believed, said: system identifier and timeline, each.
        for_seconds: how long they must say so to be believed.
    """

    __module__ = "lagwise.events"

    believed: tuple[int, int]
    said: tuple[int, int]
    for_seconds: float


Watcher = Callable[[Event], None]
"""Called with each event, in the event loop: it must not block."""
