"""OpenTelemetry's SDK in memory: what an application's exporter would have sent."""

from collections.abc import Iterator
from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, Metric
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

POOL = "db.client.connection.pool.name"


class Telemetry:
    """A meter provider and a tracer provider, and what was collected."""

    def __init__(self) -> None:
        self._reader = InMemoryMetricReader()
        self._exporter = InMemorySpanExporter()
        self.meters = MeterProvider([self._reader], shutdown_on_exit=False)
        self.tracers = TracerProvider(shutdown_on_exit=False)
        self.tracers.add_span_processor(SimpleSpanProcessor(self._exporter))

    def metrics(self) -> Iterator[Metric]:
        """Every metric, collected now."""
        data = self._reader.get_metrics_data()
        for resource in data.resource_metrics if data is not None else ():
            for scope in resource.scope_metrics:
                yield from scope.metrics

    def points(self) -> dict[tuple[str, frozenset[tuple[str, Any]]], Any]:
        """Each point's value, or of a histogram the point, by the metric's name and the point's attributes."""
        return {
            (metric.name, frozenset((point.attributes or {}).items())): getattr(point, "value", point)
            for metric in self.metrics()
            for point in metric.data.data_points
        }

    def value(self, name: str, **attributes: Any) -> Any:
        """The point of this metric that has these attributes and no other; dots in names are written `__`."""
        wanted = frozenset((key.replace("__", "."), value) for key, value in attributes.items())
        return self.points().get((name, wanted))

    def spans(self, name: str | None = None) -> list[ReadableSpan]:
        """The spans that have ended."""
        return [span for span in self._exporter.get_finished_spans() if name in {None, span.name}]

    def everything(self) -> str:
        """All that would have been exported, as text."""
        return (
            repr(self.points())
            + "".join(metric.to_json() for metric in self.metrics())
            + "".join(span.to_json() for span in self.spans())
        )
