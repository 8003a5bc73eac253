"""What one client has seen so far, carried through a request, a job or a script by a context variable."""

from collections import deque
from collections.abc import Iterable
from contextvars import ContextVar, Token

from lagwise._client import known
from lagwise._client.doubts import doubt
from lagwise._client.leaving import leave
from lagwise._client.request import Request
from lagwise._decide.route import Route
from lagwise._decide.token import CausalToken, Position
from lagwise.errors import RoutingError

_current: ContextVar["Causality | None"] = ContextVar("lagwise_causality", default=None)
current = _current.get
"""The innermost causality of this task, or None."""

_OUTERMOST = Token.MISSING
_NOTHING = CausalToken()
# A causality may live as long as a WebSocket, and opens a session for every message.
_ROUTES = 64


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
    """How often a position or a doubt was added; a session compares this count with that of its opening."""
    request: Request | None = None  # that the block serves
    served: Request | None = None  # by this block, or the one around it
    _alone = True
    _grew = False
    _window = 0.0

    def __init__(self, token: CausalToken | str | None = None) -> None:
        if isinstance(token, str):
            token = CausalToken.parse(token)
        self._seen = _NOTHING if token is None else token
        self._pending: set[Commit] = set()
        self._writing: set[Commit] = set()
        self._entered: list[Token[Causality | None]] = []
        self.routes: deque[Route] = deque(maxlen=_ROUTES)
        """Where the latest sessions opened here went, and why."""

    @classmethod
    def current(cls) -> "Causality | None":
        """The innermost causality of this task, if there is one."""
        return _current.get()

    @property
    def token(self) -> CausalToken:
        """Everything seen so far; commits under way, or cut off, count as in doubt from now on."""
        if not self._pending:
            return self._seen
        # All at once: a thread may ask for a call of its own while the event loop begins another commit.
        return self._seen.including(doubt(commit.system or 0) for commit in tuple(self._pending))

    @property
    def window(self) -> float:
        """The longest sticky window that the token may serve, seconds: the client must keep it so long at least."""
        return max(self._window, *(known.windows or (known.WINDOW,)))

    @property
    def grew(self) -> bool:
        """Whether there is more to carry than was brought: something was written, or may have been, or seen."""
        return self._grew or bool(self._pending)

    @property
    def writing(self) -> bool:
        """Whether a write session has a transaction open, or objects that it has not flushed yet."""
        if self._writing or self.served is None:
            return bool(self._writing)
        return self.served.answer.sessions is not None and self.served.answer.unsent

    @property
    def under_way(self) -> bool:
        """Whether its block has been entered and not left: the request, or the job, is being served."""
        return bool(self._entered)

    def begin(self, system: int | None, window: float) -> "Commit":
        """Note a transaction that a write session begins; answers the handle of its commit, not announced yet.

        `system` is the identifier of its cluster, None for a database that needs no token. `window` is in seconds.
        """
        commit = Commit(self.carriers(), system, window)
        for causality in commit.carriers:
            causality._writing.add(commit)
        return commit

    def _await(self, commit: "Commit") -> None:
        self._pending.add(commit)
        self.changes += 1
        self._window = max(self._window, commit.window)

    def _end(self, commit: "Commit") -> None:
        self._writing.discard(commit)

    def saw(self, position: Position, window: float) -> None:
        """Add the position of a read: later reads must not be older. `window` is the sticky window, seconds."""
        for causality in self.carriers():
            causality._window = max(causality._window, window)
        self.learn([position])

    def learn(self, positions: Iterable[Position], *, carry: bool = True) -> None:
        """Add positions of others, a token or a list: later reads must not be older.

        `carry`: whether the answer must carry them, because the client does not have them.
        """
        for causality in self.carriers():
            causality._seen, before = causality._seen.including(positions), causality._seen
            if causality._seen != before:
                causality._grew |= carry
                causality.changes += 1

    def serve(self, request: Request) -> None:
        """The block serves this request."""
        self.request = self.served = request

    async def identify(self, key: str) -> None:
        """Name the principal that this request acts for, such as `"user:42"`, as soon as it is known.

        Its reads see what any client of this principal wrote, also in open sessions, and they see what it writes.

        Raises:
            RoutingError: there is no store here (`CausalityMiddleware(store=...)`), or seventeen principals are named.
            TypeError, ValueError: the key is no string, or empty.
        """
        for around in self.carriers():
            if around.request is not None and (principals := around.request.principals) is not None:
                return self.learn(await principals.recall(key, around.window), carry=False)
        raise RoutingError("identify() needs a request with a store: CausalityMiddleware(app, ..., store=...)")

    def doubt(self) -> None:
        """Add a doubt: a response leaves while a transaction is open, so its client may learn of a write too early."""
        self._grew = True
        self._seen = self._seen.including([doubt()])
        self.changes += 1

    def carriers(self) -> "tuple[Causality, ...]":
        """This causality, and all those around it: they carry what it adds.

        Each is listed once, also where two tasks have entered one inside the other both ways.
        """
        if self._alone:
            return (self,)
        carriers: list[Causality] = [self]
        for causality in carriers:  # it grows meanwhile
            for entered in causality._entered:
                around = entered.old_value
                if isinstance(around, Causality) and around not in carriers:
                    carriers.append(around)
        return tuple(carriers)

    def _settle(self, commit: "Commit", position: Position | None) -> None:
        self._pending.discard(commit)
        self._writing.discard(commit)
        self.changes += 1
        if self.served is not None:
            self.served.answer.settle(commit, refused=position is None)
        if position is not None:
            self._grew = True
            self._seen = self._seen.including([position])

    def __repr__(self) -> str:
        """The scenario in a line: what was seen, by cluster; whether more is under way; where the last session went."""
        seen = ", ".join(str(position) for position in self._seen) or "nothing"
        pending = f" {len(self._pending)} in doubt" if self._pending else ""
        last = f" last={self.routes[-1].node} ({self.routes[-1].reason})" if self.routes else ""
        return f"<Causality seen={seen}{pending}{last}>"

    def __enter__(self) -> "Causality":
        token = _current.set(self)
        around = token.old_value
        if self._entered or around is not _OUTERMOST:
            self._alone = False
            if isinstance(around, Causality):
                self.served = self.served or around.served
        self._entered.append(token)
        return self

    def __exit__(self, *_: object) -> None:
        if self._alone or len(self._entered) == 1:
            _current.reset(self._entered.pop())
        else:
            leave(_current, self._entered)


class Commit:
    """One transaction that writes, and its commit.

    Causalities count an announced commit as in doubt until this handle tells its outcome. A response that the COMMIT
    should precede waits for `ended`.
    """

    __slots__ = ("__weakref__", "_over", "announced", "carriers", "system", "window")

    def __init__(self, carriers: tuple[Causality, ...], system: int | None, window: float) -> None:
        self.carriers = carriers
        self.system = system
        self.window = window
        self.announced = False
        """Whether a COMMIT was sent, and nothing is known of it yet."""
        self._over = False

    def announce(self) -> None:
        """Count the commit as in doubt from now on; called before COMMIT is sent."""
        if self.system is None or self.announced:
            return
        self.announced = True
        for causality in self.carriers:
            causality._await(self)

    def ended(self) -> None:
        """The transaction was committed, rolled back or closed. A second call does nothing."""
        if not self._over:
            self._over = True
            for causality in self.carriers:
                causality._end(self)

    def at(self, position: Position) -> None:
        """COMMIT succeeded, and the primary told this position afterwards. As below, the transaction has ended."""
        self._settle(position)

    def unplaced(self) -> None:
        """COMMIT succeeded, or may have, and its position is not known: the client is in doubt."""
        self._settle(doubt(self.system or 0))

    def refused(self) -> None:
        """The server refused COMMIT: nothing was written."""
        self._settle(None)

    def _settle(self, position: Position | None) -> None:
        if self.announced:
            self.announced, self._over = False, True
            for causality in self.carriers:
                causality._settle(self, position)
