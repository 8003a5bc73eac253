"""Who is told of events: the log, and the watchers of the application."""

import logging
from collections.abc import Callable
from weakref import WeakSet

from lagwise._client.causality import Causality
from lagwise._decide.events import Event, Routed, Watcher
from lagwise._decide.route import Reason, Route
from lagwise._nodes.log import log_event
from lagwise._nodes.say import say


class Watchers:
    """The application's watchers of one Router; they come and go while it runs.

    Attributes:
        told: tells all of them; None while there are none, so that sessions make no event in vain.
    """

    def __init__(self) -> None:
        self.told: Watcher | None = None
        self._all: tuple[Watcher, ...] = ()
        self._sticky: WeakSet[Causality] = WeakSet()

    def add(self, watcher: Watcher) -> Callable[[], None]:
        """Tell this watcher of every event from now on; the function returned ends that."""
        mine = _guarded(watcher)

        def stop() -> None:
            self._set(tuple(each for each in self._all if each is not mine))

        self._set((*self._all, mine))
        return stop

    def tell(self, event: Event) -> None:
        """Tell the log of what happened to a node, and then the watchers."""
        log_event(event)
        self.pass_on(event)

    def routed(self, seen: Causality | None, chosen: Route, *, write: bool, waited: float = 0.0) -> None:
        """Tell the watchers where a session of this client went."""
        if seen is not None:
            if seen.tell is None or seen.untold:
                self.meet(seen)
            if chosen.reason is Reason.STICKY:
                self._sticky.add(seen)
        self.pass_on(Routed(route=chosen, write=write, waited=waited))

    def meet(self, seen: Causality | None) -> None:
        """Report, once, what this client brought to the middleware, which knows no Router, and what it will be given.

        A causality inside the request's own is met together with that one.
        """
        for each in seen.carriers() if seen is not None else ():
            each.tell = each.tell or self.pass_on
            untold, each.untold = each.untold, ()
            for event in untold:
                self.pass_on(event)

    def pass_on(self, event: Event) -> None:
        """Tell the watchers that there are now."""
        if self.told is not None:
            self.told(event)

    @property
    def sticky_clients(self) -> int:
        """Requests and jobs under way of which a session was sent to the primary as `sticky`; counted while watched."""
        return sum(seen.under_way for seen in self._sticky)

    def _set(self, watchers: tuple[Watcher, ...]) -> None:
        self._all = watchers
        self.told = None if not watchers else watchers[0] if len(watchers) == 1 else self._each

    def _each(self, event: Event) -> None:
        for watcher in self._all:
            watcher(event)


def _guarded(watcher: Watcher) -> Watcher:
    def guarded(event: Event) -> None:
        try:
            watcher(event)
        except Exception as error:
            say(logging.ERROR, "watcher-failed", watched=type(event).__name__, error=type(error).__name__)

    return guarded
