"""Consistency checking: whether what clients did and saw keeps the session guarantees.

Record one `Operation` for every read and write, from the client's side; then `check` the `History`. The
guarantees are those of Terry et al., "Session Guarantees for Weakly Consistent Replicated Data" (1994).

The checkers judge by versions. A `Version` is the timeline a write was made on and a number that grows with every
write of the database: taken from one counter row whose lock is held until COMMIT, so that numbers are in commit
order. Replicas replay in that order, so each state a client can see is a prefix of it; that is why a read of one
key can show that a write of another is missing.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from lagwise.testing.operations import Operation, Recorder, Version, Violation

__all__ = [
    "SESSION",
    "Checker",
    "History",
    "Operation",
    "Recorder",
    "Version",
    "Violation",
    "answers",
    "check",
    "monotonic_reads",
    "monotonic_writes",
    "no_phantoms",
    "read_your_writes",
    "staleness_bound",
    "writes_follow_reads",
]


@dataclass(frozen=True)
class History:
    """All operations, and what became of the writes.

    `survived` maps each version in the final primary to its key and value. A write that was acknowledged and then
    lost with the old primary, as asynchronous replication allows, is not the router's doing: no read has to show it.
    None says that there was no failover.
    """

    operations: tuple[Operation, ...]
    survived: Mapping[Version, tuple[str, str | None]] | None = None

    @cached_property
    def versions(self) -> Mapping[str, list[Version]]:
        """The versions of each key that count, in order."""
        found: dict[str, set[Version]] = defaultdict(set)
        if self.survived is not None:
            for version, (key, _) in self.survived.items():
                found[key].add(version)
        else:
            for op in self.operations:
                if op.version is not None and op.outcome == "ok":
                    found[op.key].add(op.version)
        return {key: sorted(versions) for key, versions in found.items()}

    @cached_property
    def clients(self) -> Mapping[str, list[Operation]]:
        """Each client's operations by their start."""
        found: dict[str, list[Operation]] = defaultdict(list)
        for op in sorted(self.operations, key=lambda op: op.start):
            found[op.client].append(op)
        return found

    @cached_property
    def _all(self) -> list[Version]:
        return sorted({version for versions in self.versions.values() for version in versions})

    def newest(self, key: str, upto: Version | None) -> Version | None:
        """The version of this key that a state which contains `upto` shows, at least."""
        return _last(self.versions.get(key, []), upto)

    def surviving(self, version: Version | None) -> Version | None:
        """The newest version of any key that survives, up to this one."""
        return _last(self._all, version)

    def acknowledged(self, op: Operation) -> bool:
        """Whether this is a write that was acknowledged and has not been lost."""
        if op.kind != "write" or op.outcome != "ok" or op.version is None:
            return False
        return self.survived is None or self.survived.get(op.version) == (op.key, op.value)


_NEVER = Version(-1, 0)
Checker = Callable[[History], list[Violation]]


def read_your_writes(history: History) -> list[Violation]:
    """A read contains every write that was acknowledged to this client before."""
    return _missed(history, "read-your-writes", history.acknowledged, "its own acknowledged write")


def monotonic_reads(history: History) -> list[Violation]:
    """A read contains everything that earlier reads of this client have shown."""
    return _missed(history, "monotonic-reads", _saw, "what it had read before")


def monotonic_writes(history: History) -> list[Violation]:
    """A client's write comes after its earlier ones: whatever state contains it contains them."""
    return _misplaced(history, "monotonic-writes", history.acknowledged, "its own earlier write")


def writes_follow_reads(history: History) -> list[Violation]:
    """A client's write comes after the writes it had read."""
    return _misplaced(history, "writes-follow-reads", _saw, "a write that it had read")


def staleness_bound(history: History, seconds: float) -> list[Violation]:
    """A read contains every write, of whatever client, acknowledged more than `seconds` before it started."""
    everyone = sorted(history.operations, key=lambda op: op.start)
    known = _floors(filter(_read, everyone), filter(history.acknowledged, everyone), seconds)
    story = f"the read misses a write acknowledged more than {seconds:g} s before"
    return [
        Violation("staleness-bound", op.client, (floor, op), story)
        for op, floor in known
        if _below(op.version, history.newest(op.key, floor.version))
    ]


def no_phantoms(history: History) -> list[Violation]:
    """What a read shows was written, with this key and version, and not by a write that is known to have failed."""
    written = {op.value: op for op in history.operations if op.kind == "write"}
    violations = []
    for op in filter(_saw, history.operations):
        source = written.get(op.value)
        if source is None:
            violations.append(Violation("no-phantoms", op.client, (op,), "no write wrote what was read"))
        elif source.outcome == "failed" or source.start > op.end:
            story = "the read shows a write that failed, or had not begun"
            violations.append(Violation("no-phantoms", op.client, (source, op), story))
        elif source.key != op.key or source.version not in {None, op.version}:
            story = "the read shows the write under another key or version"
            violations.append(Violation("no-phantoms", op.client, (source, op), story))
    return violations


def answers(
    history: History, *, within: float, errors: Iterable[str] = ("503", "NoPrimary", "NoReplica")
) -> list[Violation]:
    """Every operation ends within so many seconds; reads succeed, or fail with one of these errors."""
    allowed, violations = {*errors}, []
    for op in history.operations:
        if op.end - op.start > within:
            violations.append(Violation("answers", op.client, (op,), f"no answer within {within:g} s"))
        elif op.kind == "read" and op.outcome != "ok" and op.error not in allowed:
            violations.append(Violation("answers", op.client, (op,), f"a read failed with {op.error}"))
    return violations


SESSION: tuple[Checker, ...] = (read_your_writes, monotonic_reads, monotonic_writes, writes_follow_reads, no_phantoms)


def check(history: History, guarantees: Iterable[Checker] = SESSION) -> list[Violation]:
    """Every violation of these guarantees; `functools.partial` gives the others their bounds."""
    return [violation for guarantee in guarantees for violation in guarantee(history)]


def _read(op: Operation) -> bool:
    return op.kind == "read" and op.outcome == "ok"


def _saw(op: Operation) -> bool:
    return _read(op) and op.version is not None


def _last(versions: list[Version], upto: Version | None) -> Version | None:
    index = bisect_right(versions, upto) if upto is not None else 0
    return versions[index - 1] if index else None


def _below(seen: Version | None, wanted: Version | None) -> bool:
    return wanted is not None and (seen is None or seen < wanted)


def _floors(
    ops: Iterable[Operation], before: Iterable[Operation], slack: float = 0.0
) -> Iterator[tuple[Operation, Operation]]:
    """Each of `ops`, which are in order of start, with the greatest version among those `before` it, if any."""
    ending, at = sorted(before, key=lambda op: op.end), 0
    floor: Operation | None = None
    for op in ops:
        while at < len(ending) and ending[at].end + slack < op.start:
            if floor is None or _below(floor.version, ending[at].version):
                floor = ending[at]
            at += 1
        if floor is not None:
            yield op, floor


def _missed(history: History, name: str, counts: Callable[[Operation], bool], what: str) -> list[Violation]:
    violations = []
    for client, ops in history.clients.items():
        for op, floor in _floors(filter(_read, ops), filter(counts, ops)):
            wanted = history.newest(op.key, floor.version)
            if _below(op.version, wanted):
                story = f"the later read misses {what}"
                if wanted != floor.version:
                    story += f" (there {op.key} had version {wanted})"
                violations.append(Violation(name, client, (floor, op), story))
    return violations


def _misplaced(history: History, name: str, counts: Callable[[Operation], bool], what: str) -> list[Violation]:
    return [
        Violation(name, client, (floor, op), f"the later write does not come after {what}")
        for client, ops in history.clients.items()
        for op, floor in _floors((op for op in ops if op.kind == "write" and op.version), filter(counts, ops))
        if not _below(history.surviving(floor.version) or _NEVER, op.version)
    ]
