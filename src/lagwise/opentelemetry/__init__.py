"""Metrics and span attributes for OpenTelemetry."""

from lagwise._extras import extra

with extra("opentelemetry", "lagwise.opentelemetry"):
    import opentelemetry.metrics as _  # noqa: F401

from lagwise.opentelemetry.instrumentation import Instrumentation, instrument

__all__ = ["Instrumentation", "instrument"]
