"""Events in words for people. Only names, reasons and numbers get into them: of an error its class."""

from lagwise._decide.events import (
    BeliefContradicted,
    ClusterChanged,
    ClusterUnconfirmed,
    Event,
    NodeRefusesConnections,
    PositionAsked,
    Promoted,
    Retried,
    TimelineAbandoned,
    TokenIgnored,
    TwoPrimaries,
)
from lagwise._decide.news import DatabaseChanged
from lagwise._decide.node import Standing
from lagwise.health.recent import Kind, Told

WORDS = {
    Standing.PRIMARY: "is the primary",
    Standing.IN_ROTATION: "is in rotation",
    Standing.LAGGING: "lags by more than max_lag",
    Standing.DRAINED: "is drained",
    Standing.UNREACHABLE: "is unreachable",
    Standing.OTHER_TIMELINE: "follows another timeline than the primary's",
    Standing.OTHER_CLUSTER: "belongs to another cluster",
    Standing.OTHER_DATABASE: "leads to another database than the application's",
    Standing.RIVAL_PRIMARY: "says that it is the primary, and is not believed",
    Standing.RIVALS_REPLICA: "follows one of two rival primaries",
    Standing.SAME_SERVER: "is another name for a server that is listed already",
    Standing.UNCONFIRMED: "is not confirmed to belong to the cluster",
}
"""What a node does, by its standing; the node's name goes before."""


def told(event: Event) -> Told | None:
    """What an event says. None for those that are counted, and for changes of a node, which `moved` tells."""
    match event:
        case Promoted(node=node, before=before, timeline=timeline):
            place = f" in the place of {before}" if before != node else ""
            return Told("promoted", node, f"{node} was promoted: it is the primary{place}, on timeline {timeline}")
        case TokenIgnored(why=why):
            return Told("token-ignored", None, f"A client's token was ignored: {why}")
        case Retried(node=node, failure=failure):
            return Told("retried", node, f"A read failed on {node} and ran again ({failure})")
        case PositionAsked(node=node, found=False):
            said = f"A commit on {node} got no position: its client reads from the primary for sticky_window"
            return Told("position", node, said)
        case NodeRefusesConnections(node=node):
            return Told("changed", node, f"{node} refuses new connections; those that are open are used")
    return _of_the_cluster(event)


def moved(name: str, before: Standing, now: Standing, error: str | None) -> Told:
    """A node's standing has changed; `error` is the class of what made it unreachable."""
    kind: Kind = "changed"
    text = f"{name} {WORDS[now]}"
    if now is Standing.IN_ROTATION and before is not Standing.PRIMARY:
        kind, text = "returned", f"{name} is back in rotation"
    elif before is Standing.IN_ROTATION and now is not Standing.PRIMARY:
        kind, text = "evicted", f"{name} left the rotation: it {WORDS[now]}"
    return Told(kind, name, f"{text} ({error})" if error and now is Standing.UNREACHABLE else text)


def _of_the_cluster(event: Event) -> Told | None:
    match event:
        case TwoPrimaries(nodes=nodes):
            said = f"Several nodes say that they are the primary, none of them is used: {', '.join(nodes)}"
        case ClusterUnconfirmed(nodes=nodes):
            said = f"Nothing confirms that these nodes belong to the cluster, none of them is used: {', '.join(nodes)}"
        case ClusterChanged():
            said = "The nodes are of another cluster than before"
        case TimelineAbandoned(believed=believed, timeline=timeline):
            said = f"A promotion was undone: timeline {timeline} is current again, and {believed} is given up"
        case DatabaseChanged():
            said = "The application's database is another one than before: it was made anew, or renamed"
        case BeliefContradicted(for_seconds=seconds):
            said = f"Every node that answers contradicts what is believed of the cluster; it gives way in {seconds:g} s"
        case _:
            return None
    return Told("cluster", None, said)
