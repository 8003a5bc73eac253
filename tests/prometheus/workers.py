"""An application for several worker processes, with the metrics of all of them on one path."""

import os

from prometheus_client import CollectorRegistry, make_asgi_app
from prometheus_client.multiprocess import MultiProcessCollector

from lagwise import Router
from lagwise.prometheus import Collector
from tests.kit.application import routed
from tests.kit.routers import PATIENT

# The order of the environment is the order of the replicas' names, as a Router gives them.
db = Router(os.environ["PRIMARY"], os.environ["REPLICAS"].split(","), policy=PATIENT)
Collector(db)

registry = CollectorRegistry()
MultiProcessCollector(registry)  # type: ignore[no-untyped-call]

app = routed(db)
app.mount("/metrics", make_asgi_app(registry))
