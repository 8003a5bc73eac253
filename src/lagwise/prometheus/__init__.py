"""Metrics for Prometheus: `REGISTRY.register(Collector(db))`."""

from lagwise._extras import extra

with extra("prometheus", "lagwise.prometheus"):
    import prometheus_client as _  # noqa: F401

from lagwise.prometheus.collector import Collector

__all__ = ["Collector"]
