"""The answer to a request, and the write sessions on which it depends whether that answer is true."""

from dataclasses import dataclass
from weakref import WeakSet

from sqlalchemy.orm import Session


@dataclass(slots=True, eq=False)
class Answer:
    """The answer that a request gets: prepared while its write sessions may still have something to commit.

    A background task opens its sessions when the answer is prepared. It says nothing of what they do.

    Attributes:
        prepared: whether it waits to be sent.
        refused: whether the server has refused the latest COMMIT on which it depends, since it was prepared.
        sessions, commits: of write sessions that were opened before; None before the first.
    """

    prepared: bool = False
    refused: bool = False
    sessions: WeakSet[Session] | None = None
    commits: WeakSet[object] | None = None

    def wait_for(self, session: Session) -> None:
        """Depend on this session, which was opened before."""
        if self.sessions is None:
            self.sessions, self.commits = WeakSet(), WeakSet()
        self.sessions.add(session)

    def depend_on(self, commit: object) -> None:
        """Depend on this commit, of a session that was opened before."""
        if self.commits is not None:
            self.commits.add(commit)

    @property
    def unsent(self) -> bool:
        """Whether a session holds objects that were added, changed or deleted, and not flushed."""
        return any(session.new or session.dirty or session.deleted for session in self.sessions or ())

    def prepare(self) -> None:
        """It is prepared, and false if a COMMIT is refused from now on."""
        self.prepared, self.refused = True, False

    def settle(self, commit: object, *, refused: bool) -> None:
        """A COMMIT succeeded, or the server refused it."""
        if self.commits is not None and commit in self.commits:
            self.refused = refused
