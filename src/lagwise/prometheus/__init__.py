"""Metrics for Prometheus: `REGISTRY.register(Collector(db))`."""

from lagwise.prometheus.collector import Collector

__all__ = ["Collector"]
