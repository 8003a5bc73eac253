"""The answer to a request, and the write sessions on which it depends whether that answer is true."""

from typing import Protocol
from weakref import WeakSet


class Writer(Protocol):
    """A write session, as the answer that depends on it sees it."""

    @property
    def unsent(self) -> bool:
        """Whether it holds objects whose changes have not been sent to the server."""
        ...


class Answer:
    """The answer that a request gets: prepared while its write sessions may still have something to commit.

    A background task opens its sessions when the answer is prepared. It says nothing of what they do.
    """

    __slots__ = ("_commits", "_writers", "prepared", "refused")

    def __init__(self) -> None:
        self.prepared = False
        self.refused = False
        """Whether the server has refused the latest COMMIT on which it depends, since it was prepared."""
        self._writers: WeakSet[Writer] = WeakSet()
        self._commits: WeakSet[object] = WeakSet()

    def wait_for(self, writer: Writer) -> None:
        """Depend on this session, which was opened before."""
        self._writers.add(writer)

    def depend_on(self, commit: object) -> None:
        """Depend on this commit, of a session that was opened before."""
        self._commits.add(commit)

    @property
    def unsent(self) -> bool:
        """Whether a session holds what its COMMIT, or a flush before it, has still to send."""
        return any(writer.unsent for writer in self._writers)

    def prepare(self) -> None:
        """It is prepared, and false if a COMMIT is refused from now on."""
        self.prepared, self.refused = True, False

    def settle(self, commit: object, *, refused: bool) -> None:
        """A COMMIT succeeded, or the server refused it."""
        if commit in self._commits:
            self.refused = refused
