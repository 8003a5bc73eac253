"""What the middleware knows of one request, beside what its client has seen."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from lagwise._client.answer import Answer
from lagwise._client.bucket import Bucket
from lagwise._client.cookies import Jar
from lagwise._client.store import Principals
from lagwise._decide.events import Event, Watcher


@dataclass(slots=True, eq=False)
class Request:
    """One request: its client's bucket, whom it acts for, and what is to be told of it.

    The middleware knows no Router. The first session of one with a watcher tells what the client brought, and where it
    is to be told that the answer carries a token.

    Attributes:
        untold: what has still to be told of what its client brought.
        principals: whom it acts for; None without a store.
        answer: what it gets.
        bucket: that of its client, once a Router has asked.
        tell: tells the watchers of the Router in which the token grew; None where there is none.
    """

    headers: Iterable[tuple[bytes, bytes]] = field(repr=False)
    jar: Jar
    untold: tuple[Event, ...] = ()
    principals: Principals | None = None
    answer: Answer = field(default_factory=Answer, init=False, repr=False)
    bucket: Bucket | None = field(default=None, init=False)
    tell: Watcher | None = field(default=None, init=False, repr=False)

    def find_bucket(self) -> Bucket:
        """The bucket of its client: the same one each time."""
        if self.bucket is None:
            self.bucket = Bucket(self.headers, self.jar)
        return self.bucket

    def take_untold(self) -> tuple[Event, ...]:
        """What its client brought, for the one who tells it."""
        untold, self.untold = self.untold, ()
        return untold

    def report_to(self, tell: Watcher) -> None:
        """Tell this watcher when the answer carries a token: it grows in a session of its Router."""
        self.tell = tell
