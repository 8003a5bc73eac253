"""Metrics and span attributes for OpenTelemetry."""

from lagwise.opentelemetry.instrumentation import Instrumentation, instrument

__all__ = ["Instrumentation", "instrument"]
