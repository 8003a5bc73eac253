"""The database of an application, in the one module that the others import."""

import os

from lagwise import Router

PRIMARY = os.environ["LAGWISE_PRIMARY"]
REPLICAS = [url for url in os.environ.get("LAGWISE_REPLICAS", "").split(",") if url]
SECRET = os.environ["LAGWISE_SECRET"]

db = Router(PRIMARY, replicas=REPLICAS)
