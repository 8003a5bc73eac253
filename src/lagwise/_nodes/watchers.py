"""Who is told of events: the log, and the watchers of the application."""

import logging
from collections.abc import Callable

from lagwise._client.causality import Causality
from lagwise._decide.events import Event, TokenIgnored, Watcher
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
        if self.told is not None:
            self.told(event)

    def _set(self, watchers: tuple[Watcher, ...]) -> None:
        self._all = watchers
        self.told = None if not watchers else watchers[0] if len(watchers) == 1 else self._each

    def _each(self, event: Event) -> None:
        for watcher in self._all:
            watcher(event)


def tell_ignored(seen: Causality | None, watcher: Watcher) -> None:
    """Report, once, the texts that a client brought and that are no tokens: the middleware knows no Router."""
    if seen is not None and seen.ignored:
        ignored, seen.ignored = seen.ignored, ()
        for why in ignored:
            watcher(TokenIgnored(why=why))


def _guarded(watcher: Watcher) -> Watcher:
    def guarded(event: Event) -> None:
        try:
            watcher(event)
        except Exception as error:
            say(logging.ERROR, "watcher-failed", watched=type(event).__name__, error=type(error).__name__)

    return guarded
