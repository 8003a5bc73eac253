"""Every metric: its name, its unit, its labels, and what it means."""

from dataclasses import dataclass
from typing import Literal

from lagwise._nodes.tally import LABELS, Key

Across = Literal["livemax", "livemin", "livesum"]
Kind = Literal["counter", "gauge", "histogram"]


@dataclass(frozen=True, slots=True)
class Described:
    """One metric.

    Attributes:
        name: without `lagwise_`, and without the `_total` of a counter.
        help: what it means, in a sentence.
        labels: their names.
        across: for a gauge, what several worker processes' values become; None for counters and histograms.
    """

    name: str
    help: str
    labels: Key = ()
    across: Across | None = None

    @property
    def full_name(self) -> str:
        """The name, as the families of prometheus-client are called."""
        return f"lagwise_{self.name}"

    @property
    def sample_name(self) -> str:
        """The name of a number of it, as it is written; a histogram has several."""
        return f"{self.full_name}_total" if self.kind == "counter" else self.full_name

    @property
    def kind(self) -> Kind:
        """What Prometheus calls its type."""
        return "gauge" if self.across is not None else "histogram" if self.name.endswith("_seconds") else "counter"


_COUNTED = {
    "routes": "Sessions that got a node, by the node, the one word why, and whether they may write.",
    "waits": "Sessions that waited for a better view of the nodes, by how the wait ended.",
    "fall_backs": "Reads that the primary served for want of a replica, by the reason.",
    "retries": "Reads that failed on a node and ran again, by the node and the kind of failure.",
    "refusals": "Sessions that no node could serve, by the class of their error.",
    "tokens_brought": "Requests that opened a session and had brought a causal token.",
    "tokens_ignored": "Texts that clients brought and that are no tokens of this application, by what is wrong.",
    "tokens_issued": "Answers that carried a causal token to their client.",
    "positions": "Commits of clients with a token, by the node and by where their position is from.",
    "evictions": "How often a replica left the rotation, by what it was then.",
    "returns": "How often a replica came back into rotation.",
    "promotions": "How often a node was promoted.",
}
COUNTERS = {name: Described(name, said, LABELS[name]) for name, said in _COUNTED.items()}
"""What a `Tally` counts, by its name there."""

WAIT = Described("wait_seconds", "How long sessions waited for a better view of the nodes, of those that waited.")
POSITION = Described(
    "position_seconds", "How long commits took to get a position that the answer to COMMIT had not told."
)
POOL_WAIT = Described(
    "pool_wait_seconds", "How long sessions waited for a connection; 0 for those that did not.", ("pool",)
)
POOL_CREATE = Described("pool_create_seconds", "How long it took to open a connection and to set it up.", ("pool",))

OPEN = Described("open", "1 while the Router is open.", across="livemin")
BLIND = Described(
    "monitor_blind", "1 when the monitor has ended and nothing is learned of the nodes any more.", across="livemax"
)
IN_SIGHT = Described("primary_in_sight", "1 while a node takes writes.", across="livemin")
MAX_LAG = Described("max_lag_seconds", "The bound on staleness that the policy sets.", across="livemax")
STALENESS = Described(
    "node_staleness_seconds",
    "By how much a replica may be behind the primary, at most; +Inf when that cannot be bounded.",
    ("node",),
    "livemax",
)
LAG = Described(
    "node_lag_bytes",
    "Log that the primary has written and this node has not replayed; +Inf while that is unknown.",
    ("node",),
    "livemax",
)
IN_ROTATION = Described(
    "node_in_rotation",
    "1 for a replica that is within max_lag; without a primary in sight 0, and the policy decides.",
    ("node",),
    "livemin",
)
PRIMARY = Described("node_primary", "1 for the node that takes writes; there is no other series.", ("node",), "livemax")
READING_AGE = Described(
    "node_reading_age_seconds",
    "How long ago the node was read; +Inf while it is unreachable.",
    ("node",),
    "livemax",
)
STICKY = Described(
    "sticky_clients", "Requests and jobs under way that were sent to the primary for their own writes.", (), "livesum"
)
PLACES = Described(
    "fall_back_places_used", "Sessions that hold one of the fall_back_limit places on the primary.", (), "livesum"
)
PLACES_LIMIT = Described("fall_back_places_limit", "The fall_back_limit of the policy; +Inf for none.", (), "livesum")

OFFLOAD = Described(
    "offload_ratio", "The share of clients whose reads may go to replicas, 0 to 1; below 1 others are held back.", (),
    "livemin",
)  # fmt: skip
HELD_BACK = Described(
    "held_back_reads",
    "Reads held back on the primary, by the role of the node that would have served them.",
    ("would",),
)
HELD_BACK_WAITS = Described("held_back_waits", "Of these, reads that would have waited for a replica.")
HELD_BACK_STALE = Described(
    "held_back_naively_stale",
    "Of these, reads that a naive split would have shown a state before their own client's write; an expected number.",
)

_POOL = ("node", "pool")
USED = Described("pool_used", "Connections of the pool that sessions hold now.", _POOL, "livesum")
IDLE = Described("pool_idle", "Open connections of the pool that no session holds.", _POOL, "livesum")
POOL_LIMIT = Described("pool_limit", "Connections that the pool opens at most; +Inf for no limit.", _POOL, "livesum")
WAITING = Described("pool_waiting", "Sessions that wait for a connection of the pool now.", _POOL, "livesum")
POOL_TIMEOUTS = Described("pool_timeouts", "Sessions that got no connection of the pool in time.", _POOL)
POOL_OPENED = Described("pool_opened", "Connections that the pool has opened.", _POOL)

HISTOGRAMS = (WAIT, POSITION, POOL_WAIT, POOL_CREATE)
"""Those of pools are of all nodes together: with the nodes as a label a scrape of many would be long."""
GAUGES = (
    OPEN, BLIND, IN_SIGHT, MAX_LAG, STALENESS, LAG, IN_ROTATION, PRIMARY, READING_AGE, STICKY, PLACES, PLACES_LIMIT,
    OFFLOAD, USED, IDLE, POOL_LIMIT, WAITING,
)  # fmt: skip
KEPT_ELSEWHERE = (HELD_BACK, HELD_BACK_WAITS, HELD_BACK_STALE, POOL_TIMEOUTS, POOL_OPENED)
"""Counters that are not of a `Tally`."""
DESCRIBED = (*COUNTERS.values(), *KEPT_ELSEWHERE, *HISTOGRAMS, *GAUGES)
"""All of them, in the order in which they are shown."""

KNOWN: dict[str, tuple[Key, ...]] = {
    "waits": (("replica",), ("primary",), ("refused",)),
    "fall_backs": (("none-caught-up",), ("all-lagging",), ("none-in-rotation",), ("other-timeline",)),
    "refusals": tuple((error, role) for error in ("NoPrimary", "NoReplica") for role in ("read", "write")),
    "tokens_brought": ((),),
    "tokens_ignored": (("not-signed",), ("malformed",), ("other-version",)),
    "tokens_issued": ((),),
}
"""Keys that are shown as 0 from the start: Prometheus does not see the first step of a series that was not there."""
