"""What `instrument()` begins, and how it ends."""

from collections.abc import Callable, Mapping
from functools import partial
from time import time_ns
from weakref import WeakKeyDictionary, ref

from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import Status, StatusCode, Tracer, TracerProvider, get_current_span, get_tracer

from lagwise._decide.events import Event, PositionAsked, Refused, Routed
from lagwise._nodes.tally import Tally
from lagwise.opentelemetry.instruments import VERSION, Instruments, Shown, instruments_of
from lagwise.opentelemetry.observed import NODE, POOL, counters_of
from lagwise.router import Router

_REASON = "lagwise.reason"
_REFUSED = "lagwise.refused"
_DATABASE = "lagwise.database"


class Instrumentation:
    """The telemetry of one Router, until `uninstrument()`."""

    __module__ = "lagwise.opentelemetry"

    def __init__(self, db: Router, instruments: Instruments, tracer: Tracer, attributes: Mapping[str, str]) -> None:
        teller = _Teller(instruments, tracer, attributes)
        shown = Shown(ref(db), teller.tally, attributes)
        self._ends: list[Callable[[], None]] = [db.watch(teller), instruments.show(shown)]
        for name, counters in counters_of(db):
            pool = {**attributes, POOL: name}
            self._ends.append(counters.create_time.hear(partial(instruments.create_time.record, attributes=pool)))
            self._ends.append(counters.wait_time.hear(partial(instruments.wait_time.record, attributes=pool)))

    @property
    def ended(self) -> bool:
        """Whether `uninstrument()` was called."""
        return not self._ends

    def uninstrument(self) -> None:
        """Tell no more of this Router. To call it again does nothing."""
        while self._ends:
            self._ends.pop()()


_running: WeakKeyDictionary[Router, Instrumentation] = WeakKeyDictionary()


def instrument(
    db: Router,
    meter_provider: MeterProvider | None = None,
    tracer_provider: TracerProvider | None = None,
    *,
    database: str | None = None,
) -> Instrumentation:
    """Tell OpenTelemetry of this Router: metrics, and attributes of the current span.

    Works before the Router is open, and each time it is; while it is closed there is nothing to observe. A Router that
    is instrumented already stays as it is, and the answer is that of the first call.

    Args:
        db: the Router. It is not kept alive.
        meter_provider: of the metrics; the global one unless given, also where that is set later.
        tracer_provider: of the span that a wait has; likewise.
        database: a name, for a process with several Routers: the attribute `lagwise.database` of all that is told.

    Returns:
        What ends it: `instrument(db).uninstrument()`.
    """
    running = _running.get(db)
    if running is None or running.ended:
        tracer = get_tracer("lagwise", VERSION, tracer_provider)
        attributes = {_DATABASE: database} if database is not None else {}
        running = _running[db] = Instrumentation(db, instruments_of(meter_provider), tracer, attributes)
    return running


class _Teller:
    """A watcher: counts each event, and writes on the current span where its session went."""

    def __init__(self, instruments: Instruments, tracer: Tracer, attributes: Mapping[str, str]) -> None:
        self.tally = Tally()
        self._instruments = instruments
        self._tracer = tracer
        self._attributes = attributes

    def __call__(self, event: Event) -> None:
        self.tally(event)
        if isinstance(event, Routed | Refused):
            if event.waited:
                self._instruments.wait.record(event.waited, self._attributes)
            self._tell_span(event)
        elif isinstance(event, PositionAsked) and event.seconds is not None:
            self._instruments.position.record(event.seconds, self._attributes)

    def _tell_span(self, event: Routed | Refused) -> None:
        span = get_current_span()
        if not span.is_recording():
            return
        if isinstance(event, Refused):
            said = {**self._attributes, _REFUSED: event.error}
        else:
            said = {**self._attributes, NODE: event.route.node or "", _REASON: event.route.reason.value}
        span.set_attributes(said)
        if event.waited:
            now = time_ns()
            wait = self._tracer.start_span("lagwise.wait", attributes=said, start_time=now - int(event.waited * 1e9))
            if isinstance(event, Refused):
                wait.set_status(Status(StatusCode.ERROR))
            wait.end(now)
