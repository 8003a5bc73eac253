"""Pool events in the log, `get_pool_stats`, and a health check that needs no `SELECT 1`."""

import logging
from typing import Any

from fastapi import FastAPI
from sqlalchemy import Pool, event

from examples.patterns.database import PRIMARY, REPLICAS, SECRET
from lagwise import Router
from lagwise.events import Event, NodeChanged
from lagwise.fastapi import CausalityMiddleware, health_router, lifespan
from lagwise.health import PoolsHealth, pools

log = logging.getLogger("shop.database")


@event.listens_for(Pool, "connect")
def connected(_connection: Any, _record: Any) -> None:  # of every pool; a listener may be given one engine instead
    log.info("a connection was opened")


def noticed(happened: Event) -> None:
    if isinstance(happened, NodeChanged):
        log.warning("%s is now %s", happened.node, happened.standing)


# Per process, the primary must accept 2 * (10 + 1) + 1 connections, each replica (10 + 1) + 1.
db = Router(PRIMARY, REPLICAS, pool_size=10, pool_timeout=5, on_event=noticed)
api = FastAPI(lifespan=lifespan(db))
api.include_router(health_router(db), prefix="/health")  # was: SELECT 1, through the pool that may be full
app = CausalityMiddleware(api, secret=SECRET)


@api.get("/admin/pools")
async def get_pool_stats() -> PoolsHealth:
    return pools(db)
