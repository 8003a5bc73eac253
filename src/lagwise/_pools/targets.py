"""What an application configures: the targets of a Router, and the pools they make."""

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import URL
from sqlalchemy.ext.asyncio import AsyncEngine

from lagwise._given import a_kind, instead
from lagwise._pools.options import check
from lagwise._pools.pooling import Pooling
from lagwise._pools.pools import Pools
from lagwise._pools.urls import target_of

Target = str | URL | AsyncEngine
PRIMARY = "primary"


@dataclass(frozen=True, slots=True, kw_only=True)
class Replica:
    """A replica with a weight: `weight=2` takes twice the share of reads of `weight=1`.

    Raises:
        ValueError: `weight` is not a finite number above 0, or `url` is neither a URL nor an `AsyncEngine`.
    """

    __module__ = "lagwise"

    url: str | URL | AsyncEngine = field(repr=False)  # it may hold a password
    weight: float = 1.0

    def __init__(self, url: str | URL | AsyncEngine, *, weight: float = 1.0) -> None:
        if not (isinstance(weight, int | float) and 0 < weight < float("inf")):
            raise ValueError(f"weight must be a number above 0{instead(weight)}; to stop reads use db.drain(name)")
        target_of(url, "url of a Replica")
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
    first = target_of(primary, PRIMARY)
    check(options)
    pools = {PRIMARY: Pools(PRIMARY, first, weight=1.0, options=options, pooling=pooling)}
    for name, one, setting in _named(replicas):
        given, weight = (one.url, one.weight) if isinstance(one, Replica) else (one, 1.0)
        pools[name] = Pools(name, target_of(given, setting), weight=weight, options=options, pooling=pooling)
    if len(pools) > 1 and not all(node.is_postgresql for node in pools.values()):
        raise ValueError(
            "replicas need PostgreSQL (postgresql+asyncpg://...) on every node; without replicas any database will do"
        )
    return pools


def _is_a_line(text: str) -> bool:
    return text.isprintable() and text != "" and text == text.strip()


def _named(replicas: object) -> Iterator[tuple[str, object, str]]:
    """Each replica's name, what was given for it, and the words for its place."""
    if isinstance(replicas, Mapping):
        for number, (name, one) in enumerate(replicas.items(), 1):
            if name == PRIMARY:
                raise ValueError('"primary" is the name of the primary: give the replica another name')
            if not (
                isinstance(name, str) and name.isprintable() and name and name == name.strip() and "://" not in name
            ):
                raise ValueError(f"the name of replica {number} must be text on one line, and no URL")
            yield name, one, f'replica "{name}"'
        return
    if isinstance(replicas, str | URL):
        raise ValueError("replicas must be a mapping of names, or a list, of URLs or engines, not a single URL")
    if isinstance(replicas, Set) or not isinstance(replicas, Iterable):  # a set has another order in each process
        raise ValueError(
            f"replicas must be a mapping of names, or a list, of URLs or engines, not {a_kind(replicas)}; "
            "leave it out for none"
        )
    for number, one in enumerate(replicas, 1):
        yield f"replica-{number}", one, f"replicas at place {number}"
