"""The Router: knows the nodes, watches them while it is open, and opens sessions on them."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Self

from lagwise._client.causality import Causality, current
from lagwise._client.signature import verified
from lagwise._decide.events import Watcher
from lagwise._decide.explaining import Explanation
from lagwise._decide.identity import Terms
from lagwise._decide.shadow import Shadow
from lagwise._decide.token import CausalToken
from lagwise._decide.view import View
from lagwise._nodes.catching_up import caught_up
from lagwise._nodes.explaining import explained
from lagwise._nodes.ledger import Ledger
from lagwise._nodes.monitor import Monitor
from lagwise._nodes.offloading import OffloadingNodes
from lagwise._nodes.watchers import Watchers
from lagwise._pools.pooling import Mode, pooling_of
from lagwise._pools.pools import Pools
from lagwise._pools.targets import Replica, Target, pools_of
from lagwise._sessions.joined import one_transaction
from lagwise._sessions.maker import RoutingSessionMaker, options_of
from lagwise.policy import Policy, policy_of


class Router:
    """Opens sessions on the primary and its replicas; nothing is connected until `async with router:`.

    Args:
        primary: URL or AsyncEngine of the node expected to be the primary. Roles are discovered: whichever
            node is not in recovery gets the writes.
        replicas: name -> URL, AsyncEngine or `Replica(url, weight=2)`; a plain list gets the names
            replica-1, replica-2, ... With no replica every read runs on the primary, read-only.
        policy: how stale a read may be, how long it may wait, and what happens when no replica is fresh enough.
        on_event: called with a frozen value (`lagwise.events`) for each event: a session is routed, a node's standing
            changes, another node is promoted. The function must not block; an error in it is logged and not raised.
        session_options: as for `async_sessionmaker`; `expire_on_commit` is False unless given.
        system: the cluster's system identifier, as `pg_controldata` prints it: a server of another cluster is never
            written to or read from. Without it the node configured as primary says which cluster is ours, or a
            majority of the nodes.
        pooling: "transaction" where a pooler in transaction mode, such as PgBouncer, stands before the nodes: nothing
            is set that outlives a transaction, and each read is one. "session" for a connection with a server process
            of its own.
        engine_options: for the engines made from URLs, as for `create_async_engine`.

    Raises:
        ValueError: a setting is missing or makes no sense; the message names it.
    """

    __module__ = "lagwise"

    def __init__(
        self,
        primary: Target,
        replicas: Mapping[str, Target | Replica] | Sequence[Target | Replica] = (),
        *,
        policy: Policy | None = None,
        on_event: Watcher | None = None,
        session_options: Mapping[str, Any] | None = None,
        system: int | str | None = None,
        pooling: Mode = "session",
        **engine_options: Any,
    ) -> None:
        policy = policy_of(policy)
        pools = pools_of(primary, replicas, engine_options, pooling_of(pooling))
        self._nodes = OffloadingNodes(pools, policy, Watchers(), Terms.of(policy, system))
        if on_event is not None:
            self.watch(on_event)
        ledger = Ledger(self._nodes)
        options = options_of(session_options)
        self.read = RoutingSessionMaker(self._nodes, ledger, write=False, options=options)
        """Sessions that read, from whichever node is fresh enough for this client."""
        self.write = RoutingSessionMaker(self._nodes, ledger, write=True, options=options)
        """Sessions on the primary."""

    @classmethod
    def from_env(cls, prefix: str = "LAGWISE_", **overrides: Any) -> Self:
        """The Router that environment variables describe: LAGWISE_PRIMARY, LAGWISE_REPLICAS, LAGWISE_MAX_LAG, ...

        Args:
            prefix: of all names. `lagwise.settings.Settings` has the names.
            overrides: what a Router takes, and fields of `Policy`: they come before the variables.

        Raises:
            ImportError: pydantic-settings is not installed: `pip install "lagwise[settings]"`.
            ValueError: a value is missing or makes no sense; one line that names the variable, never a URL or secret.
        """
        from lagwise.settings.model import arguments  # noqa: PLC0415 - needs the extra

        return cls(**arguments(prefix, overrides))

    async def __aenter__(self) -> Self:
        await self._nodes.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._nodes.stop()

    @property
    def view(self) -> View:
        """What is known of the nodes right now; from memory, replaced whole at every reading."""
        return self._nodes.view

    @property
    def policy(self) -> Policy:
        """The policy in force. `offload` is the only part of it that changes while the Router runs."""
        return self._nodes.policy

    @policy.setter
    def policy(self, policy: Policy) -> None:
        raise AttributeError(
            "a Router's policy stays as it is; db.offload alone can be set while it runs. Clients have dropped tokens "
            "under the old sticky_window, and a greater max_lag would let in replicas that miss those writes: deploy "
            "the greater sticky_window first, and one such window later the greater max_lag"
        )

    @property
    def offload(self) -> float:
        """The share of clients, 0 to 1, whose reads may go to replicas; a change takes effect with the next session.

        A client stays where it is while the share rises: who was let in at 0.1 is let in at 0.2. Every process has a
        share of its own.

        Raises:
            ValueError: it is set to anything else than a number from 0 to 1.
        """
        return self._nodes.offload

    @offload.setter
    def offload(self, share: float) -> None:
        self._nodes.let_in(share)

    @property
    def shadow(self) -> Shadow:
        """What would have become of the reads that were held back; counts since the Router was made, from memory."""
        return self._nodes.shadow

    @property
    def pools(self) -> Mapping[str, Pools]:
        """The pools of each node, by name."""
        return self._nodes.pools

    def watch(self, watcher: Watcher) -> Callable[[], None]:
        """Call `watcher` with each event from now on, as `on_event` is; the function returned ends that."""
        return self._nodes.watchers.add(watcher)

    def drain(self, name: str) -> None:
        """Send no more reads to this replica; sessions under way go on. `KeyError` for an unknown name."""
        self._nodes.drain(name, drained=True)

    def undrain(self, name: str) -> None:
        """Let a drained replica back into rotation."""
        self._nodes.drain(name, drained=False)

    async def caught_up(self, token: CausalToken | str | None = None, timeout: float = 30.0) -> CausalToken:  # noqa: ASYNC109
        """Wait until every replica in rotation has what the primary has now, or what `token` stands for.

        Returns what every replica in rotation has by then; without replicas the token, at once. Replicas that lag are
        waited for, too; those that are drained, cannot be reached or follow another primary are not.

        Args:
            token: a `CausalToken` or its text (signed or not; text from outside must be verified first). A doubt in
                it, a crowd or a timeline that is over means what the primary has now.
            timeout: seconds.

        Raises:
            NotCaughtUp: the time is over. The message names who is behind, and by how much; it is a `TimeoutError`.
            NotOpen: the Router is not running, or was closed meanwhile.
            InvalidToken: the text is not a token.
            ValueError: `timeout` is not a number of seconds.
        """
        monitor = self._monitor
        self._nodes.home.require()
        return await caught_up(monitor, self.policy, token, timeout)

    def explain(
        self,
        token: CausalToken | str | None = None,
        *,
        write: bool = False,
        max_staleness: float | None = None,
        primary: bool = False,
        secret: str | Sequence[str] | None = None,
    ) -> Explanation:
        """Tell where a session would go now, what keeps it off each replica, and what its client's token says.

        `print(db.explain())`: the answer is a frozen value, and its text has lines in plain words without addresses. It
        is the decision itself, from memory; with an `offload` above 0, for a client whose reads may go to replicas.

        Args:
            token: a `CausalToken`, or its text, such as the value of the client's cookie. None: what the causality
                around has seen, as for a session opened here.
            write: of `db.write()`, otherwise of `db.read()`.
            max_staleness: as for `db.read()`, seconds.
            primary: as for `db.read()`.
            secret: verifies a signed text, as the middleware would.

        Raises:
            NotOpen: the Router is not running.
            InvalidToken: the text is not a token, or is signed and `secret` did not sign it.
            ValueError: the options make no sense together.
        """
        maker = self.write if write else self.read
        intent = maker.intent(max_staleness=max_staleness, primary=primary)
        return explained(self._nodes, intent, Causality(verified(token, secret)) if token is not None else current())

    def one_transaction(self) -> AbstractAsyncContextManager[None]:
        """What `lagwise.testing.rolled_back(db)` enters: all sessions share one transaction, rolled back at the end.

        Not for use in production: sessions wait for each other, and nothing is ever committed.
        """
        return one_transaction(self._nodes, (self.read, self.write))

    def serves(self, *, write: bool) -> bool:
        """Whether a write, or a read without a token, would be served now; from memory. Raises `NotOpen`."""
        return self._nodes.serves(write=write)

    @property
    def blind(self) -> bool:
        """Whether the monitor has ended while the Router is open: readings are no longer taken. Raises `NotOpen`."""
        return self._monitor.ended

    @property
    def fallen_back(self) -> int:
        """How many sessions read from the primary in one of the places that `Policy(fall_back_limit=...)` allows."""
        return len(self._nodes.fallen_back)

    @property
    def sticky_clients(self) -> int:
        """Requests and jobs under way that were sent to the primary as `sticky`; counted while there is a watcher."""
        return self._nodes.watchers.sticky_clients

    def require_open(self) -> None:
        """Raise `NotOpen` unless the Router runs."""
        self._nodes.require_open()

    @property
    def _monitor(self) -> Monitor:
        return self._nodes.monitor

    def __repr__(self) -> str:
        if not self._nodes.is_open:
            return f"<Router closed, nodes {', '.join(self.pools)}>"
        return f"<Router {self._monitor.scenario}>"
