"""What one client has seen so far, carried through a request, a job or a script by a context variable."""

import time
from contextvars import ContextVar, Token
from types import TracebackType

from lagwise._decide.route import Route
from lagwise._decide.token import CausalToken, Position

_current: ContextVar["Causality | None"] = ContextVar("lagwise_causality", default=None)
# Clusters that Routers of this process have met. A token's entry for another one is not an error: it may
# belong to another service's database, or to this one before it was moved.
known_systems: set[int] = set()
# The sticky windows of the open Routers of this process: one token, and one cookie, serves them all.
known_windows: list[float] = []

_NOTHING = CausalToken()


class Causality:
    """Reads inside the `with` block see the writes that `token` stands for, and those made in the block.

    `token` is a `CausalToken`, its text (signed or not), or None to start with nothing seen. Text from
    outside the application must be verified first; `CausalityMiddleware` does that for requests.

    Raises:
        InvalidToken: the text is not a causal token.

    >>> with Causality(None) as seen:
    ...     str(seen.token)
    ''
    """

    __module__ = "lagwise"

    changes = 0
    """How often something was added, or put in doubt: a session compares it with what it opened on."""
    _grew = False
    _window = 0.0

    def __init__(self, token: CausalToken | str | None = None) -> None:
        if isinstance(token, str):
            # What follows the dot is the signature that the middleware added.
            token = CausalToken.parse(token.partition(".")[0])
        self._seen = token or _NOTHING
        self._pending: set[Commit] = set()
        self._entered: list[Token[Causality | None]] = []
        self.routes: list[Route] = []
        """Where the sessions opened here went, and why."""

    @classmethod
    def current(cls) -> "Causality | None":
        """The innermost causality of this task, if there is one."""
        return _current.get()

    @property
    def token(self) -> CausalToken:
        """Everything seen so far; commits under way, or cut off, count as in doubt from now on."""
        if not self._pending:
            return self._seen
        now = whole_seconds()
        return self._seen.including(Position(system=commit.system, in_doubt_at=now) for commit in self._pending)

    @property
    def window(self) -> float:
        """How long a client must keep its token, seconds: what it brought may be another Router's."""
        return max(self._window, *known_windows, 0.0)

    @property
    def grew(self) -> bool:
        """Whether there is more to carry than was brought: something was written, or may have been, or seen."""
        return self._grew or bool(self._pending)

    def committing(self, system: int, window: float) -> "Commit":
        """A COMMIT is about to be sent: from here on it is in doubt until the handle says otherwise."""
        commit = Commit(self, system)
        self._pending.add(commit)
        self.changes += 1
        self._window = max(self._window, window)
        return commit

    def saw(self, position: Position, window: float) -> None:
        """Something was read: later reads shall not be older than this."""
        self._window = max(self._window, window)
        self._seen, before = self._seen.including([position]), self._seen
        self._grew = self._grew or self._seen != before
        self.changes += self._seen != before

    def _settle(self, commit: "Commit", position: Position | None) -> None:
        if commit not in self._pending:
            return
        self._pending.discard(commit)
        self.changes += 1
        if position is not None:
            self._grew = True
            self._seen = self._seen.including([position])

    def __enter__(self) -> "Causality":
        self._entered.append(_current.set(self))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _current.reset(self._entered.pop())


class Commit:
    """One commit that a causality waits to hear of. Not hearing is the conservative answer."""

    __slots__ = ("_causality", "system")

    def __init__(self, causality: Causality, system: int) -> None:
        self._causality = causality
        self.system = system

    def at(self, position: Position) -> None:
        """It succeeded, and this position of the primary was asked for afterwards."""
        self._causality._settle(self, position)

    def unplaced(self) -> None:
        """It succeeded, or may have, and where is not known."""
        self._causality._settle(self, Position(system=self.system, in_doubt_at=whole_seconds()))

    def refused(self) -> None:
        """The server said no: nothing was written."""
        self._causality._settle(self, None)


def whole_seconds() -> int:
    """The epoch time rounded up: a token may live a second longer, not shorter."""
    return int(-(-time.time() // 1))
