"""What a Router's nodes and pools look like now, in numbers: from memory, in whatever thread asks."""

from collections.abc import Iterator
from math import inf
from time import monotonic

from sqlalchemy.pool import Pool

from lagwise._decide.node import Standing
from lagwise._nodes.tally import Key, Tally
from lagwise._pools.counters import Durations, capacity, checked_out
from lagwise.errors import NotOpen
from lagwise.prometheus.metrics import (
    BLIND,
    HELD_BACK,
    HELD_BACK_STALE,
    HELD_BACK_WAITS,
    IDLE,
    IN_ROTATION,
    IN_SIGHT,
    LAG,
    MAX_LAG,
    OFFLOAD,
    OPEN,
    PLACES,
    PLACES_LIMIT,
    POOL_CREATE,
    POOL_LIMIT,
    POOL_OPENED,
    POOL_TIMEOUTS,
    POOL_WAIT,
    POSITION,
    PRIMARY,
    READING_AGE,
    STALENESS,
    STICKY,
    USED,
    WAIT,
    WAITING,
    Described,
)
from lagwise.router import Router

Number = tuple[Described, Key, float]


def numbers(db: Router) -> Iterator[Number]:
    """Each number with the labels that it has. Nothing is asked of any database.

    A Router that is not open has neither nodes nor clients; what its pools have counted stays.
    """
    limit = db.policy.fall_back_limit
    try:
        nodes, blind = list(_nodes(db)), db.blind
    except NotOpen:
        nodes, blind = [], False
        yield OPEN, (), 0
    else:
        yield OPEN, (), 1
    yield BLIND, (), blind
    yield MAX_LAG, (), db.policy.max_lag
    yield STICKY, (), db.sticky_clients
    yield PLACES, (), db.fallen_back
    yield PLACES_LIMIT, (), inf if limit is None else limit
    yield OFFLOAD, (), db.offload
    shadow = db.shadow
    yield HELD_BACK, ("replica",), shadow.on_replicas
    yield HELD_BACK, ("primary",), shadow.reads - shadow.on_replicas
    yield HELD_BACK_WAITS, (), shadow.would_wait
    yield HELD_BACK_STALE, (), shadow.naively_stale
    yield from nodes
    yield from _pools(db)


def histograms(db: Router, tally: Tally) -> Iterator[tuple[Described, Key, list[Durations]]]:
    """Each histogram with the labels that it has, in the parts that it is the sum of."""
    yield WAIT, (), [tally.waited]
    yield POSITION, (), [tally.asked]
    for role in ("writing", "reading"):
        counters = [pools.tallies[role] for pools in db.pools.values() if role == "writing" or pools.is_postgresql]
        if counters:
            yield POOL_WAIT, (role,), [each.wait_time for each in counters]
            yield POOL_CREATE, (role,), [each.create_time for each in counters]


def _nodes(db: Router) -> Iterator[Number]:
    view, now, max_lag = db.view, monotonic(), db.policy.max_lag
    yield IN_SIGHT, (), view.primary is not None
    if view.primary is not None:
        yield PRIMARY, (view.primary.name,), 1
    for node in view.nodes:
        reading, standing, key = node.reading, view.standing(node, max_lag, now), (node.name,)
        yield STALENESS, key, inf if (staleness := node.shown_staleness(now)) is None else staleness
        yield LAG, key, inf if (lag := view.lag(node)) is None else lag
        yield IN_ROTATION, key, standing is Standing.IN_ROTATION
        yield READING_AGE, key, inf if reading is None else max(0.0, now - reading.at)


def _pools(db: Router) -> Iterator[Number]:
    for name, pools in db.pools.items():
        engines = pools.in_use()
        for role, counters in pools.tallies.items():
            key, engine = (name, role), engines.get(role)
            if engine is None and not (counters.opened or counters.waits):
                continue  # never used, as the pool of a replica for writes
            if role == "reading" and counters is pools.tallies["writing"]:
                continue  # one pool for both
            yield POOL_TIMEOUTS, key, counters.timeouts
            yield POOL_OPENED, key, counters.opened
            yield WAITING, key, counters.waiting
            pool = engine.sync_engine.pool if engine is not None else None
            yield USED, key, checked_out(pool) if pool is not None else 0
            yield IDLE, key, _idle(pool) if pool is not None else 0
            yield POOL_LIMIT, key, capacity(pool) if pool is not None else 0


def _idle(pool: Pool) -> int:
    checked_in = getattr(pool, "checkedin", None)  # pools without a queue have none
    return checked_in() if checked_in is not None else 0
