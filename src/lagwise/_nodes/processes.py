"""How many processes may answer one client: as many as watch the same primary."""

from collections.abc import Callable
from math import inf

from lagwise._client import known
from lagwise._decide.view import Reading, Role

_GAP = 2.0  # seconds: processes are started one after the other


class Processes:
    """Makes known to this process's requests how many processes watch one primary.

    They cannot be counted behind a pooler in transaction mode (not `countable`), by a role that may not ask, and with
    `track_activities` off.
    """

    def __init__(self, clock: Callable[[], float], *, countable: bool) -> None:
        self._clock = clock
        self._due = -inf if countable else inf
        self._before = 0

    @property
    def due(self) -> bool:
        """Whether to count them with the next question."""
        return self._clock() >= self._due

    def heard(self, reading: Reading, *, counted: bool) -> None:
        """Take the count from an answer of the node, if it was asked for. Replicas have none.

        The greater of the latest two is made known: after a restart of the primary the others come back one by one.
        """
        if counted:
            self._due = self._clock() + _GAP
        if reading.role is Role.REPLICA:
            self.forget()
        elif counted:
            known.processes[self] = max(self._before, reading.processes) or known.UNCOUNTED
            self._before = reading.processes
        elif self not in known.processes:
            known.processes[self] = known.UNCOUNTED

    def refused(self) -> None:
        """Never ask again: this role may not."""
        self._due = inf

    def forget(self) -> None:
        """This node is no primary any more, or is not watched."""
        known.processes.pop(self, None)
        self._before = 0
