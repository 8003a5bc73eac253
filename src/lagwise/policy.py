"""How stale a read may be, how long to wait for freshness, and what to do when there is none."""

import math
from dataclasses import dataclass, fields
from typing import Literal, get_args

from lagwise._given import a_kind, instead

WithoutPrimary = Literal["serve", "refuse"]
Guarantee = Literal["read-your-writes", "session"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """One frozen, validated choice for a Router. All durations are seconds.

    `sticky_window >= max_lag` makes a forgotten token harmless: when the token has expired, every
    replica in rotation is fresher than the write that the token stands for.

    Raises:
        ValueError: a setting is out of range; the message names it and the remedy.
    """

    max_lag: float = 5.0
    """A replica staler than this leaves the rotation and comes back by itself."""
    sticky_window: float = 5.0
    """How long after a write the client's token binds its reads; at least `max_lag`. Clients keep the token longer."""
    catch_up: float = 0.05
    """How long a read may wait for a replica to reach its floor before it goes to the primary."""
    probe_interval: float = 0.5
    """Time between two probes of a node, at most; a node that does not answer is probed up to 1.7 times less often."""
    probe_timeout: float = 0.5
    """How long one probe, or the connection it needs, may take."""
    fall_back: bool = True
    """Whether reads may use the primary when no replica qualifies; otherwise `NoReplica`."""
    fall_back_limit: int | None = None
    """The most sessions at a time that may read from the primary for want of a replica; beyond it `NoReplica`."""
    abort_after: float = 5.0
    """A node that has answered no probe for so long has what waits for it cut off; reads run elsewhere. A single
    connection whose path is silent for so long is closed."""
    connect_timeout: float = 5.0
    """How long a new connection of a pool may take; then a read goes to another node, and a write is `NoPrimary`."""
    close_timeout: float = 5.0
    """How long each step of leaving the Router may take; connections to silent nodes are then cut off."""
    guarantee: Guarantee = "read-your-writes"
    """What a client's token carries: its writes, or in a "session" also what it has read (monotonic reads)."""
    without_primary: WithoutPrimary = "serve"
    """While no primary can be seen: serve reads from replicas of unknown staleness, or refuse them."""
    offload: float = 1.0
    """The share of clients, 0 to 1, whose reads may go to replicas; the primary serves those of the others."""

    def __post_init__(self) -> None:
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
                raise ValueError(f"{name} must be a number of seconds{instead(value)}")
            if value < least or (name in _POSITIVE and value == 0):
                raise ValueError(f"{name} must be {'above' if name in _POSITIVE else 'at least'} 0{instead(value)}")
        if self.sticky_window < self.max_lag:
            raise ValueError(
                f"sticky_window ({self.sticky_window:g} s) must be at least max_lag ({self.max_lag:g} s): "
                "an expired token would uncover replicas that miss the write; raise sticky_window or lower max_lag"
            )
        share = self.offload
        if not isinstance(share, int | float) or isinstance(share, bool) or not 0 <= share <= 1:
            raise ValueError(f"offload must be a share of clients from 0 to 1{instead(share)}")
        limit = self.fall_back_limit
        if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool) or limit < 0):
            raise ValueError(f"fall_back_limit must be a whole number of sessions or None for no limit{instead(limit)}")
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} must be {' or '.join(map(repr, choices))}{instead(getattr(self, name))}")


def policy_of(given: Policy | None) -> Policy:
    """This policy, or the default. Raises `ValueError` for anything else."""
    if given is not None and not isinstance(given, Policy):
        raise ValueError(f"policy must be a Policy, not {a_kind(given)}: give policy=Policy(max_lag=...)")
    return Policy() if given is None else given


_CHOICES = {"fall_back": (False, True), "without_primary": get_args(WithoutPrimary), "guarantee": get_args(Guarantee)}
_POSITIVE = {
    "max_lag",
    "sticky_window",
    "probe_interval",
    "probe_timeout",
    "abort_after",
    "connect_timeout",
    "close_timeout",
}
_LEAST = {field.name: 0.0 for field in fields(Policy) if isinstance(field.default, float) and field.name != "offload"}
