"""A simulated replicated store that knows what every state contained: the oracle for the checkers."""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from lagwise.testing.history import History, Operation, Version
from lagwise.testing.operations import Outcome

KEYS = ("a", "b", "c")
State = tuple[str, ...]  # the values committed, in order


@dataclass
class Pending:
    """A request under way: drawn up at its start, effective at some later moment."""

    operation: Operation
    fate: Outcome
    floor: State
    effective: bool = False
    state: State = ()


@dataclass
class Store:
    """Branches of one log: each promotion forks the last one, and an old branch may go on for a while.

    A correct store reads from states that contain what its client wrote and saw, and writes to the last branch
    only. One that is not correct does both anywhere.
    """

    seed: int
    correct: bool
    branches: list[list[str]] = field(default_factory=lambda: [[]])
    versions: dict[str, Version] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)
    states: dict[float, State] = field(default_factory=dict)  # by the start of a read, or of a write: before it
    forks: list[int] = field(default_factory=lambda: [0])

    def run(self, steps: int = 60) -> History:
        """A history with `steps` beginnings, effects, endings and promotions."""
        self.random = random.Random(self.seed)
        self.clock = iter(range(1_000_000))
        self.floors: dict[str, State] = {}
        self.done: list[Operation] = []
        pending: list[Pending] = []
        for _ in range(steps):
            action = self.random.choices(("begin", "effect", "end", "promote"), (4, 4, 4, 0.3))[0]
            if action == "begin":
                pending.append(self.begin())
            elif action == "promote":
                self.promote()
            elif pending:
                chosen = self.random.choice(pending)
                self.take_effect(chosen)
                if action == "end":
                    pending.remove(chosen)
                    self.end(chosen)
        for one in pending:
            self.take_effect(one)
            self.end(one)
        survived = {self.versions[value]: (self.keys[value], value) for value in self.branches[-1]}
        return History(tuple(self.done), survived)

    def begin(self) -> Pending:
        client, key = self.random.choice(("ann", "bob")), self.random.choice(KEYS)
        now = float(next(self.clock))
        kind = self.random.choice(("read", "read", "write"))
        operation = Operation(client=client, kind="read", key=key, start=now, end=now)
        fates: tuple[Outcome, ...] = (*("ok",) * 8, "unknown", "failed")
        if kind == "write":
            operation = replace(operation, kind="write", value=f"{client}-{now:g}")
        return Pending(operation, self.random.choice(fates), self.floors.get(client, ()))

    def take_effect(self, one: Pending) -> None:
        if one.effective:
            return
        one.effective, operation = True, one.operation
        if operation.kind == "read":
            one.state = self.random.choice(list(self.readable(one.floor)))
            seen = next((value for value in reversed(one.state) if self.keys[value] == operation.key), None)
            one.operation = replace(operation, value=seen, version=self.versions.get(seen or ""))
        elif one.fate == "ok" or (one.fate == "unknown" and self.random.random() < 0.5):
            branch = len(self.branches) - 1 if self.correct else self.random.randrange(len(self.branches))
            log = self.branches[branch]
            one.state = tuple(log)
            assert operation.value is not None
            number = self.versions[log[-1]].number + 1 if log else 1
            self.versions[operation.value] = Version(branch + 1, number)
            self.keys[operation.value] = operation.key
            log.append(operation.value)
            if one.fate == "ok":
                one.operation = replace(operation, version=self.versions[operation.value])

    def end(self, one: Pending) -> None:
        operation = replace(one.operation, end=float(next(self.clock)), outcome=one.fate)
        if one.fate == "ok":
            self.states[operation.start] = one.state
            seen = (*one.state, operation.value) if operation.kind == "write" else one.state
            self.floors[operation.client] = (*self.floors.get(operation.client, ()), *filter(None, seen))
        self.done.append(operation)

    def promote(self) -> None:
        last = self.branches[-1]
        fork = self.random.randint(self.forks[-1], len(last))
        self.forks.append(fork)
        self.branches.append(last[:fork])

    def readable(self, floor: State) -> Iterator[State]:
        """The states a read may be served from: prefixes of branches; in a correct store not below the floor."""
        needed = {value for value in floor if value in self.branches[-1]} if self.correct else set()
        for log in self.branches:
            for length in range(len(log) + 1):
                if needed <= set(log[:length]):
                    yield tuple(log[:length])

    # The definitions, by sets: which operations break which guarantee.

    def missing(self, history: History, read: Operation, contained: State) -> bool:
        """Whether a read shows that its state lacks something that survived of `contained`, a prefix of a branch."""
        lost = set(contained) & set(self.branches[-1]) - set(self.states[read.start])
        return any(self.keys[value] == read.key for value in lost)

    def upto(self, value: str) -> State:
        """Everything on the branch of a value, up to it."""
        log = next(log for log in self.branches if value in log)
        return tuple(log[: log.index(value) + 1])

    def broken(self, history: History, name: str, slack: float = 0.0) -> set[float]:
        """The starts of the operations that break a guarantee."""
        done = [op for op in history.operations if op.outcome == "ok"]
        own = [op for op in done if op.kind == "write" and op.value in self.branches[-1]]
        saw = [op for op in done if op.kind == "read" and op.value is not None]
        reads = [op for op in done if op.kind == "read"]
        writes = [op for op in done if op.kind == "write"]
        before, after = {
            "read-your-writes": (own, reads),
            "monotonic-reads": (saw, reads),
            "monotonic-writes": (own, writes),
            "writes-follow-reads": (saw, writes),
            "staleness-bound": (own, reads),
        }[name]
        found = set()
        for later in after:
            for earlier in before:
                if earlier.end + slack >= later.start:
                    continue
                if earlier.client != later.client and name != "staleness-bound":
                    continue
                contained = self.upto(earlier.value or "")
                if later.kind == "read":
                    bad = self.missing(history, later, contained)
                else:
                    bad = bool(set(contained) & set(self.branches[-1]) - set(self.states[later.start]))
                if bad:
                    found.add(later.start)
        return found
