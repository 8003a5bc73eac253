"""What a client has seen, as a value that only grows, and the text that carries it."""

import base64
import binascii
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from lagwise._decide.lsn import LSN
from lagwise.errors import InvalidToken

OTHER_VERSION = "not a causal token of this version of lagwise"
_VERSION = 1
_ENTRY = struct.Struct(">QIQII")  # system identifier, timeline, LSN, issued at, in doubt at
_CROWDED = struct.Struct(">I")
_MOST = 16  # databases in one token: 16 make 604 characters, a seventh of the 4,096 that a cookie may have
SKEW = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """What a client has seen of one database cluster.

    Attributes:
        system: PostgreSQL's system identifier; 0 when the cluster could not be asked.
        timeline: the timeline of `lsn`; 0 when there is no position.
        lsn: everything the client wrote ends at or below it; 0 when there is no position.
        issued_at: seconds since the epoch, whole, when the last write was acknowledged.
        in_doubt_at: likewise for the last commit whose position or outcome is unknown; 0 for never.
    """

    system: int
    timeline: int = 0
    lsn: LSN = LSN(0)
    issued_at: int = 0
    in_doubt_at: int = 0

    def merge(self, other: "Position") -> "Position":
        """The least position that covers both; a timeline outranks any LSN of an earlier one."""
        place, place_of_other = (self.timeline, self.lsn), (other.timeline, other.lsn)
        if (
            place_of_other >= place
            and other.issued_at >= self.issued_at
            and other.in_doubt_at >= self.in_doubt_at
            and other.system == self.system
        ):
            return other
        timeline, lsn = max(place, place_of_other)
        return Position(
            system=self.system,
            timeline=timeline,
            lsn=lsn,
            issued_at=max(self.issued_at, other.issued_at),
            in_doubt_at=max(self.in_doubt_at, other.in_doubt_at),
        )

    def in_doubt(self, window: float, now: float) -> bool:
        """Whether a commit without a position is still inside the sticky window (seconds).

        Servers' clocks differ, and here an early end would uncover a stale replica: the window is
        prolonged by a minute. Few commits are in doubt, so that costs the primary little.
        """
        return self.in_doubt_at > 0 and now <= self.in_doubt_at + window + SKEW

    def expired(self, window: float, now: float) -> bool:
        """Whether the sticky window (seconds) has passed, so that a useless position may be dropped."""
        return now > self.issued_at + window + SKEW

    def __str__(self) -> str:
        place = f"{self.lsn} on timeline {self.timeline}" if self.timeline else "no position"
        return f"{place} of {self.system or 'any cluster'}{' (doubt)' if self.in_doubt_at else ''}"


@dataclass(frozen=True, slots=True)
class CausalToken:
    """The positions a client must not read below, at most one per database cluster.

    Tokens form a lattice: `merge` takes the greater position of each cluster, in any order and any
    number of times. `str(token)` is opaque ASCII text, empty for an empty token.

    Attributes:
        positions: in the order of their clusters.
        crowded_until: seconds since the epoch, whole: until then its client may have been told of commits that are not
            in it, and a read must see all that is committed when it begins. 0 for never.

    >>> seen = CausalToken.of([Position(system=7, timeline=1, lsn=LSN(64), issued_at=1)])
    >>> CausalToken.parse(str(seen)) == seen
    True
    """

    positions: tuple[Position, ...] = ()
    crowded_until: int = 0

    @classmethod
    def of(cls, positions: Iterable[Position]) -> "CausalToken":
        """The token that covers all of these positions."""
        return cls().including(positions)

    @classmethod
    def parse(cls, text: str) -> "CausalToken":
        """Read `str(token)`. Raises `InvalidToken`, whose message never repeats the text.

        What follows a dot is the middleware's signature, which is not verified here.
        """
        text = text.partition(".")[0]
        if not text:
            return cls()
        try:
            raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        except (ValueError, binascii.Error):
            raise InvalidToken("not a causal token: it is not base64url text") from None
        entries, rest = divmod(len(raw) - 1, _ENTRY.size)
        if not raw or raw[0] != _VERSION or rest not in {0, _CROWDED.size} or not 1 <= entries <= _MOST:
            raise InvalidToken(OTHER_VERSION)
        end = len(raw) - rest
        token = cls.of(
            Position(system=system, timeline=timeline, lsn=LSN(lsn), issued_at=issued, in_doubt_at=doubt)
            for system, timeline, lsn, issued, doubt in _ENTRY.iter_unpack(raw[1:end])
        )
        return token.crowded(*_CROWDED.unpack(raw[end:])) if rest else token

    def including(self, positions: Iterable[Position]) -> "CausalToken":
        """This token, grown to cover these positions; the least recent clusters go when there are too many."""
        seen: dict[int, Position] = {}
        for position in self.positions:
            seen[position.system] = position
        for position in positions:
            known = seen.get(position.system)
            seen[position.system] = position if known is None else known.merge(position)
        if len(seen) == 1:
            return CausalToken((*seen.values(),), self.crowded_until)
        newest = sorted(seen.values(), key=lambda p: (-max(p.issued_at, p.in_doubt_at), p.system))
        kept, dropped = newest[:_MOST], newest[_MOST:]
        if dropped:
            # A position without room becomes a doubt about every cluster: its client reads from the primary.
            doubt = max(max(p.issued_at, p.in_doubt_at) for p in [*dropped, kept[-1]])
            unnamed = next((p for p in kept if p.system == 0), Position(system=0))
            rest = [p for p in kept if p.system != 0][: _MOST - 1]
            kept = [*rest, unnamed.merge(Position(system=0, in_doubt_at=doubt))]
        return CausalToken(tuple(sorted(kept, key=lambda position: position.system)), self.crowded_until)

    def crowded(self, until: int) -> "CausalToken":
        """This token, whose client may have been told of more until then: seconds since the epoch."""
        return self if until <= self.crowded_until else CausalToken(self.positions, until)

    def in_crowd(self, window: float, now: float) -> bool:
        """Whether commits that are not in it may still be inside the sticky window (seconds); as for a doubt."""
        return self.crowded_until > 0 and now <= self.crowded_until + window + SKEW

    def merge(self, other: "CausalToken") -> "CausalToken":
        """The least token that covers both."""
        return self.including(other.positions).crowded(other.crowded_until)

    def position(self, system: int) -> Position | None:
        """What was seen of this cluster, or nothing."""
        return next((position for position in self.positions if position.system == system), None)

    def floor(self, system: int) -> Position | None:
        """What a read of this cluster must respect: its position and the doubts about unnamed clusters."""
        floor: Position | None = None
        for position in self.positions:
            if position.system in (system, 0):
                known = position if position.system == system else replace(position, system=system)
                floor = known if floor is None else floor.merge(known)
        return floor

    def __bool__(self) -> bool:
        return bool(self.positions)

    def __iter__(self) -> Iterator[Position]:
        return iter(self.positions)

    def __str__(self) -> str:
        if not self.positions:
            return ""
        entries = (_ENTRY.pack(p.system, p.timeline, p.lsn, p.issued_at, p.in_doubt_at) for p in self.positions)
        rest = _CROWDED.pack(self.crowded_until) if self.crowded_until else b""
        return base64.urlsafe_b64encode(bytes([_VERSION]) + b"".join(entries) + rest).rstrip(b"=").decode()


def merged(tokens: Iterable[CausalToken]) -> CausalToken:
    """The least token that covers all of these."""
    tokens = tuple(tokens)
    if len(tokens) == 1:
        return tokens[0]
    crowded_until = max((token.crowded_until for token in tokens), default=0)
    return CausalToken.of(position for token in tokens for position in token).crowded(crowded_until)
