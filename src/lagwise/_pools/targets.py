"""What an application configures: the targets of a Router, and the pools they make."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import URL
from sqlalchemy.ext.asyncio import AsyncEngine

from lagwise._pools.pooling import Pooling
from lagwise._pools.pools import Pools

Target = str | URL | AsyncEngine
PRIMARY = "primary"


@dataclass(frozen=True, slots=True, kw_only=True)
class Replica:
    """A replica with a weight: `weight=2` takes twice the share of reads of `weight=1`.

    Raises:
        ValueError: `weight` is not a finite number above 0.
    """

    __module__ = "lagwise"

    url: str | URL | AsyncEngine = field(repr=False)  # it may hold a password
    weight: float = 1.0

    def __init__(self, url: str | URL | AsyncEngine, *, weight: float = 1.0) -> None:
        if not (isinstance(weight, int | float) and 0 < weight < float("inf")):
            raise ValueError(f"weight must be a number above 0, not {weight!r}; to stop reads use db.drain(name)")
        object.__setattr__(self, "url", url)
        object.__setattr__(self, "weight", float(weight))


def pools_of(
    primary: Target,
    replicas: Mapping[str, Target | Replica] | Sequence[Target | Replica],
    options: Mapping[str, Any],
    pooling: Pooling,
) -> dict[str, Pools]:
    """The nodes by name, as configured. Raises `ValueError` for a setting that makes no sense."""
    if not primary:
        raise ValueError("primary is missing: give the URL or the AsyncEngine of the primary")
    if isinstance(replicas, str | URL):
        raise ValueError("replicas must be a mapping of names, or a list, of URLs or engines, not a single URL")
    if not isinstance(replicas, Mapping):
        replicas = {f"replica-{number}": one for number, one in enumerate(replicas, 1)}
    if PRIMARY in replicas:
        raise ValueError('"primary" is the name of the primary: give the replica another name')
    pools = {PRIMARY: Pools(PRIMARY, primary, weight=1.0, options=options, pooling=pooling)}
    for name, one in replicas.items():
        given = one if isinstance(one, Replica) else Replica(one)
        pools[name] = Pools(name, given.url, weight=given.weight, options=options, pooling=pooling)
    if len(pools) > 1 and not all(node.is_postgresql for node in pools.values()):
        raise ValueError(
            "replicas need PostgreSQL (postgresql+asyncpg://...) on every node; without replicas any database will do"
        )
    return pools
