"""What a client did and saw, as values: versions, operations, and the violations that checkers find in them."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

Kind = Literal["read", "write"]
Outcome = Literal["ok", "failed", "unknown"]


class Version(NamedTuple):
    """Where a write stands among all writes: first by timeline, then by number.

    A promotion starts a timeline and never takes a number back that survives; so whatever state contains a
    version contains every *surviving* version below it, also when the state itself was lost in a failover.
    """

    timeline: int
    number: int

    def __str__(self) -> str:
        return f"{self.timeline}:{self.number}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One request as its client saw it.

    Attributes:
        client: the client that asked. Two operations of a client are in order when one ended before the other started.
        kind: read or write.
        key: of what.
        value: unique text that was written, or what was read; None when the key was absent, or unknown.
        version: of that value; None when absent or unknown.
        start, end: seconds on one monotonic clock, before the request was sent and after the answer was there.
        node: the node that answered, as far as known.
        token: what the client brought along, for people.
        outcome: `ok`: answered, and a write acknowledged. `failed`: certainly not done. `unknown`: perhaps done.
        error: what it failed with.
    """

    client: str
    kind: Kind
    key: str
    value: str | None = None
    version: Version | None = None
    start: float
    end: float
    node: str | None = None
    token: str | None = None
    outcome: Outcome = "ok"
    error: str | None = None

    def __str__(self) -> str:
        said = f"{self.start:9.3f} - {self.end:9.3f} s  {self.kind:5} {self.key} = {self.value or 'nothing'}"
        said += f" ({self.version})" if self.version else ""
        said += f" on {self.node}" if self.node else ""
        return said if self.outcome == "ok" else f"{said}: {self.outcome}, {self.error}"


@dataclass(frozen=True, slots=True)
class Violation:
    """A promise that was broken: by which operations, and why they prove it. Prints as a story."""

    guarantee: str
    client: str
    operations: tuple[Operation, ...]
    explanation: str

    def __str__(self) -> str:
        lines = [f"{self.guarantee} broken for {self.client}: {self.explanation}"]
        return "\n".join(lines + [f"  {op.client:>8} {op}" for op in sorted(self.operations, key=lambda op: op.start)])


@dataclass(slots=True)
class Recorder:
    """Collects operations from any number of tasks, on one clock that never stands still."""

    operations: list[Operation] = field(default_factory=list)
    _began: float = field(default_factory=time.monotonic)
    _last: float = 0.0

    def now(self) -> float:
        """Seconds since the recorder was made; no two calls are given the same."""
        self._last = max(time.monotonic() - self._began, self._last + 1e-7)
        return self._last
