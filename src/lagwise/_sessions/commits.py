"""The commit of a session, from BEGIN until its position is known."""

from lagwise._client.causality import Causality, Commit
from lagwise._nodes.ledger import Ledger
from lagwise._pools.driver import driver_of
from lagwise._pools.writing import WritingConnection


class Commits:
    """Holds the handle of the transaction under way, when its client carries a token."""

    __slots__ = ("_commit", "_connection", "_ledger", "_node")

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._commit: Commit | None = None
        self._connection: WritingConnection | None = None
        self._node = ""

    def begin(self, node: str, seen: Causality, connection: WritingConnection) -> None:
        """Begin to follow a transaction on this node, over this connection."""
        self.close()
        self._node, self._connection = node, connection
        self._commit = connection.pending = self._ledger.begin(node, seen)

    @property
    def await_position(self) -> bool:
        """Whether `settle()` has work: a COMMIT without a position yet, or the end of a transaction that needs none."""
        commit, connection = self._commit, self._connection
        if commit is None or connection is None:
            return False
        return commit.announced or (commit.system is None and not connection.in_transaction())

    async def settle(self) -> None:
        """Find the position of a COMMIT that succeeded."""
        commit, connection = self._commit, self._connection
        if commit is not None and commit.announced and connection is not None:
            if connection.place is not None:
                self._ledger.placed(self._node, commit, *connection.place)
            else:
                await self._ledger.committed(self._node, commit, driver_of(connection))
        self.close()

    def close(self) -> None:
        """The transaction is over; a commit whose position is not known stays in doubt."""
        commit, self._commit, self._connection = self._commit, None, None
        if commit is not None:
            commit.unplaced()
            commit.ended()
