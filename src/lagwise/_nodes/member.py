"""One node: its connections, how it is probed, and where its commits end."""

import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Self

from sqlalchemy.engine import Connection
from sqlalchemy.ext.asyncio import AsyncEngine

from lagwise._nodes.positions import Positions
from lagwise._nodes.prober import Prober
from lagwise._pools.pools import Pools


@dataclass(frozen=True, slots=True)
class Member:
    """One node, while its Router is open."""

    pools: Pools
    prober: Prober
    positions: Positions

    @classmethod
    def of(cls, pools: Pools, *, alone: bool, timeout: float) -> Self:
        """The node of these pools; `alone`: the Router's only one. `timeout` bounds each question, seconds."""
        prober = Prober(
            pools.monitoring,
            alone=alone,
            timeout=timeout,
            clock=time.monotonic,
            pooled=partial(_engines, pools),
            held=partial(_held, pools),
            framed=pools.pooling.framed,
        )
        return cls(pools, prober, Positions(timeout=timeout, clock=time.monotonic))

    @property
    def name(self) -> str:
        """The node's name."""
        return self.pools.name


def _engines(pools: Pools) -> Collection[AsyncEngine]:
    return pools.in_use().values()


def _held(pools: Pools) -> Iterator[Connection]:
    return chain.from_iterable(tally.in_use() for tally in pools.tallies.values())
