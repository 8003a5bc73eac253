"""How many processes may answer one client: as many as watch the same primary."""

from collections.abc import Callable
from math import inf

from lagwise._client import known
from lagwise._decide.view import Reading, Role

_GAP = 2.0  # seconds: processes are started one after the other
_UNCOUNTED = 8


class Processes:
    """Makes known to this process's requests how many processes watch one primary.

    Where they cannot be counted it is eight: behind a pooler in transaction mode, for a role that may not ask, and with
    `track_activities` off.
    """

    def __init__(self, clock: Callable[[], float], *, countable: bool) -> None:
        self._clock = clock
        self._due = -inf if countable else inf

    @property
    def due(self) -> bool:
        """Whether to count them with the next question."""
        return self._clock() >= self._due

    def heard(self, reading: Reading) -> None:
        """Take the count of a primary's answer, if it has one; a replica is not counted on."""
        if reading.role is Role.REPLICA:
            self.forget()
        elif reading.processes or self not in known.processes:
            known.processes[self] = reading.processes or _UNCOUNTED
            self._due = max(self._due, self._clock() + _GAP)

    def refused(self) -> None:
        """Never ask again: this role may not."""
        self._due = inf

    def forget(self) -> None:
        """This node is no primary any more, or is not watched."""
        known.processes.pop(self, None)
