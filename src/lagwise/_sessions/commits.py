"""The commit of a session, from BEGIN until its position is known."""

from lagwise._client.answer import Answer
from lagwise._client.causality import Causality
from lagwise._nodes.ledger import Ledger
from lagwise._pools.driver import driver_of
from lagwise._pools.writing import WritingConnection


class SessionCommit:
    """The commit of one transaction, for a client that carries a token."""

    __slots__ = ("_commit", "_connection", "_ledger", "_node", "_seen", "covered")

    def __init__(self, ledger: Ledger, node: str, seen: Causality, connection: WritingConnection) -> None:
        self._ledger = ledger
        self._node = node
        self._seen = seen
        self._connection = connection
        self.covered = not ledger.remembers_reads
        """Whether what was read in the transaction is covered, by the position of its COMMIT or a later one, or need
        not be."""
        self._commit = connection.pending = ledger.begin(node, seen)

    def decides(self, answer: Answer) -> None:
        """This answer is false if COMMIT is refused."""
        answer.depend_on(self._commit)

    @property
    def owes(self) -> bool:
        """Whether the client may have read what a later read must not lack, and no COMMIT told where that stands."""
        return not self.covered and not self._commit.announced

    @property
    def is_over(self) -> bool:
        """Whether the transaction has ended; a savepoint that was rolled back has not ended it."""
        return not self._connection.in_transaction()

    @property
    def awaits_position(self) -> bool:
        """Whether `settle()` has work: a COMMIT without a position yet, or the end of a transaction that needs none."""
        commit = self._commit
        return commit.announced or (commit.system is None and not self._connection.in_transaction())

    def placed(self) -> bool:
        """Take the position that the answer to COMMIT told; False where it did not, and `settle()` has to ask."""
        place = self._connection.place
        if place is None:
            return False
        self._ledger.placed(self._node, self._commit, place)
        self.covered = True
        return True

    async def settle(self) -> None:
        """Ask for the position of a COMMIT that succeeded."""
        try:
            if self._commit.announced:
                await self._ledger.committed(self._node, self._commit, driver_of(self._connection))
        finally:
            self.covered = True
            self.close()

    async def remember(self) -> None:
        """Ask for a position that covers what was read in a transaction that is not committed."""
        await self._ledger.has_read(self._node, self._seen)
        self.covered = True

    def give_up(self) -> None:
        """As `close()`, at the end of the session: what was read and is not covered is in doubt."""
        if self.owes:
            self._ledger.may_have_read(self._seen)
        self.close()

    def close(self) -> None:
        """The transaction is over; a commit whose position is not known stays in doubt. A second call does nothing."""
        commit = self._commit
        if commit.announced:
            commit.unplaced()
        commit.ended()
