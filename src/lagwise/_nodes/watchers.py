"""Who is told of events: the log, and the watchers of the application."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from inspect import iscoroutinefunction
from weakref import ref

from lagwise._client.causality import Causality
from lagwise._decide.events import Event, Routed, Watcher
from lagwise._decide.route import Reason, Route
from lagwise._given import instead
from lagwise._nodes.log import log_event
from lagwise._nodes.tally import Tally
from lagwise._say import say


class Watchers:
    """The application's watchers of one Router; they come and go while it runs.

    Attributes:
        told: tells all of them; None while there are none, so that sessions make no event in vain.
        routed: tells all of them, in few instructions, that a session got its node at once, and whether it may write;
            None while there are none.
    """

    def __init__(self) -> None:
        self.told: Watcher | None = None
        self.routed: Callable[[Route, bool], None] | None = None
        self._all: tuple[_Listening, ...] = ()
        self._sticky: set[ref[Causality]] = set()

    def add(self, watcher: Watcher) -> Callable[[], None]:
        """Tell this watcher of every event from now on; the function returned ends that.

        Raises:
            ValueError: it is no plain function.
        """
        if not callable(watcher):
            raise ValueError(f"on_event must be a function that takes an event{instead(watcher)}")
        if iscoroutinefunction(watcher):
            raise ValueError("on_event must be a plain function, not an async one: no task would await it")
        mine = _listening(watcher)

        def stop() -> None:
            self._set(tuple(each for each in self._all if each is not mine))

        self._set((*self._all, mine))
        return stop

    def tell(self, event: Event) -> None:
        """Tell the log of what happened to a node, and then the watchers."""
        log_event(event)
        self.pass_on(event)

    def pass_on(self, event: Event) -> None:
        """Tell the watchers that there are now."""
        if self.told is not None:
            self.told(event)

    def meet(self, seen: Causality | None, reason: Reason | None = None) -> None:
        """Report, once, what this client brought to the middleware, which knows no Router; and note who is sticky."""
        if seen is None:
            return
        if seen.request is not None and seen.request.untold:
            for event in seen.request.take_untold():
                self.pass_on(event)
        if reason is Reason.STICKY:
            self._sticky.add(ref(seen, self._sticky.discard))
        elif reason is Reason.WRITE:
            self.will_issue(seen)

    def will_issue(self, seen: Causality) -> None:
        """This client's token grows in a session of this Router: the middleware that issues it is to report it here."""
        for each in seen.carriers():
            if each.request is not None:
                each.request.report_to(self.pass_on)

    @property
    def sticky_clients(self) -> int:
        """Requests and jobs under way of which a session was sent to the primary as `sticky`; counted while watched."""
        # Asked in another thread as well: a list is made of a set in one step.
        alive = (each() for each in list(self._sticky))
        return sum(seen is not None and seen.under_way for seen in alive)

    def _set(self, watchers: "tuple[_Listening, ...]") -> None:
        self._all = watchers
        self.told = None if not watchers else watchers[0].told if len(watchers) == 1 else self._each
        self.routed = None if not watchers else watchers[0].routed if len(watchers) == 1 else self._each_routed

    def _each(self, event: Event) -> None:
        for watcher in self._all:
            watcher.told(event)

    def _each_routed(self, route: Route, write: bool) -> None:
        for watcher in self._all:
            watcher.routed(route, write)


@dataclass(frozen=True, slots=True, eq=False)
class _Listening:
    told: Watcher
    routed: Callable[[Route, bool], None]


def _listening(watcher: Watcher) -> _Listening:
    def told(event: Event) -> None:
        try:
            watcher(event)
        except Exception as error:
            _failed(type(event), error)

    if isinstance(watcher, Tally):
        count = watcher.routed

        def routed(route: Route, write: bool) -> None:
            try:
                return count(route, write)  # without the event, which would cost as much again
            except Exception as error:
                _failed(Routed, error)

        return _Listening(told, routed)
    return _Listening(told, lambda route, write: told(Routed(route=route, write=write)))


def _failed(event: type[Event], error: Exception) -> None:
    say(logging.ERROR, "watcher-failed", watched=event.__name__, error=type(error).__name__)
