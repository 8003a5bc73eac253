"""The instruments of one meter provider. They outlive the Routers they show: OpenTelemetry removes none."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from weakref import WeakKeyDictionary, ref

from opentelemetry.metrics import CallbackOptions, Meter, MeterProvider, Observation, get_meter, get_meter_provider

from lagwise._nodes.tally import Tally
from lagwise._pools.counters import BOUNDS
from lagwise.errors import NotOpen
from lagwise.opentelemetry.observed import COUNTERS, GAUGES, HELD_BACK, POOLS, Observed
from lagwise.router import Router

VERSION = version("lagwise")


@dataclass(frozen=True, slots=True, eq=False)
class Shown:
    """One Router that instruments show, what was counted of it, and the attributes that all its points have."""

    db: ref[Router]
    tally: Tally
    attributes: Mapping[str, str]


class Instruments:
    """The instruments of one meter provider, made once.

    To OpenTelemetry's SDK a second instrument of a name is the first one, and its callback is dropped without a word.
    So all Routers of a provider share these, and come and go.
    """

    def __init__(self, meter: Meter) -> None:
        self._shown: tuple[Shown, ...] = ()
        for observed in (*POOLS, *COUNTERS, *HELD_BACK, *GAUGES):
            create = getattr(meter, f"create_observable_{observed.kind}")
            create(observed.name, [partial(self._observe, observed)], observed.unit, observed.text)
        histogram = partial(meter.create_histogram, unit="s", explicit_bucket_boundaries_advisory=BOUNDS)
        self.create_time = histogram(
            "db.client.connection.create_time", description="How long it took to open a connection and to set it up."
        )
        self.wait_time = histogram(
            "db.client.connection.wait_time", description="How long a session waited for a connection."
        )
        self.wait = histogram("lagwise.wait", description="How long a session waited for a better view of the nodes.")
        self.position = histogram(
            "lagwise.position", description="How long a commit took to get a position that its answer had not told."
        )

    def show(self, shown: Shown) -> Callable[[], None]:
        """Show this Router from now on; the function returned ends that."""
        self._shown = (*(each for each in self._shown if each.db() is not None), shown)

        def stop() -> None:
            self._shown = tuple(each for each in self._shown if each is not shown)

        return stop

    def _observe(self, observed: Observed, _: CallbackOptions) -> Iterator[Observation]:
        for shown in self._shown:
            db = shown.db()
            if db is None:
                continue
            try:
                db.require_open()
                for value, attributes in observed.points(db, shown.tally):
                    yield Observation(value, {**shown.attributes, **attributes})
            except NotOpen:  # it may be closed at any moment: metrics are collected in a thread of their own
                continue


_default: list[Instruments] = []
_made: WeakKeyDictionary[MeterProvider, Instruments] = WeakKeyDictionary()


def instruments_of(provider: MeterProvider | None) -> Instruments:
    """The instruments of this provider; of the global one for None, also where that is set later."""
    if provider is None or provider is get_meter_provider():
        if not _default:
            _default.append(Instruments(get_meter("lagwise", VERSION)))
        return _default[0]
    if provider not in _made:
        _made[provider] = Instruments(get_meter("lagwise", VERSION, provider))
    return _made[provider]
