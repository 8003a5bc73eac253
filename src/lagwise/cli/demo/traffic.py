"""Clients that behave like people at browsers, and counts of what they see."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable
from dataclasses import dataclass, field

import httpx

from lagwise.cli.demo.application import SERVED_BY

THINK = 0.15  # seconds: the mean; exponentially distributed, as closed-loop load models have it (TPC-W)
_READS_PER_WRITE = 4
_LATEST = 50  # other people's items that are looked at: the newest ones, where staleness shows
_TIMEOUT = 10.0  # seconds until a request counts as failed


@dataclass(slots=True)
class Score:
    """What the clients saw. A stale read is a GET of an item that the same client has created, and a 404."""

    writes: int = 0
    own_reads: int = 0
    stale: int = 0
    other_reads: int = 0
    other_missing: int = 0
    """Items of other clients that were not there yet. No promise was broken: `max_lag` bounds them."""
    on_replica: int = 0
    """Reads whose server said `pg_is_in_recovery()`."""
    errors: int = 0
    by_node: Counter[str] = field(default_factory=Counter)
    read_times: list[float] = field(default_factory=list)
    """Seconds, as the client measured them."""
    write_times: list[float] = field(default_factory=list)

    def failed(self) -> None:
        """A request failed, or was answered by an error."""
        self.errors += 1

    def wrote(self, seconds: float) -> None:
        """A write was answered."""
        self.writes += 1
        self.write_times.append(seconds)

    def read(self, seconds: float, served_by: str, *, own: bool, missing: bool) -> None:
        """A read was answered; `served_by` is the node and its role, as the server says."""
        self.read_times.append(seconds)
        if own:
            self.own_reads += 1
            self.stale += missing
        else:
            self.other_reads += 1
            self.other_missing += missing
        node, _, role = served_by.partition("; ")
        self.by_node[node] += 1
        self.on_replica += role == "replica"

    @property
    def reads(self) -> int:
        """Reads that were answered."""
        return self.own_reads + self.other_reads

    @property
    def requests(self) -> int:
        """Everything that was sent."""
        return self.writes + self.reads + self.errors


def quantile(times: list[float], share: float) -> float:
    """The time that `share` of them do not exceed; 0 for none.

    >>> quantile([3.0, 1.0, 2.0], 0.5)
    2.0
    """
    return sorted(times)[min(int(share * len(times)), len(times) - 1)] if times else 0.0


@dataclass(slots=True)
class Client:
    """One simulated browser: its cookie jar, the items it has created, and its random choices."""

    http: httpx.AsyncClient
    path: str
    tally: Score
    board: list[int]
    """Every item whose creation was acknowledged, by whichever client."""
    random: random.Random
    deadline: float
    own: list[int] = field(default_factory=list)

    async def write_and_read(self) -> None:
        """Create an item, read it back, look around; again until the deadline."""
        while await self._think():
            await self._create()
            for turn in range(_READS_PER_WRITE):
                if not await self._think():
                    return
                if self.own and (turn == 0 or self.random.random() < 0.5):
                    await self._read(self.own[-1])
                else:
                    await self._look_around()

    async def only_read(self) -> None:
        """Look at what others have created, until the deadline."""
        while await self._think():
            await self._look_around()

    async def _think(self) -> bool:
        """Whether there is time for another request."""
        left = self.deadline - time.monotonic()
        pause = self.random.expovariate(1 / THINK)
        if pause >= left:
            return False
        await asyncio.sleep(pause)
        return True

    async def _create(self) -> None:
        started = time.monotonic()
        answer = await self._send(self.http.post(self.path, json={"text": "milk"}))
        if answer is None or answer.status_code != 201:
            self.tally.failed()
            return
        self.tally.wrote(time.monotonic() - started)
        item: int = answer.json()["id"]
        self.own.append(item)
        self.board.append(item)

    async def _look_around(self) -> None:
        if self.board:
            await self._read(self.random.choice(self.board[-_LATEST:]))

    async def _read(self, item: int) -> None:
        started = time.monotonic()
        answer = await self._send(self.http.get(f"{self.path}/{item}"))
        if answer is None or answer.status_code not in {200, 404}:
            self.tally.failed()
            return
        seconds, missing = time.monotonic() - started, answer.status_code == 404
        self.tally.read(seconds, answer.headers[SERVED_BY], own=item in self.own, missing=missing)

    async def _send(self, request: Awaitable[httpx.Response]) -> httpx.Response | None:
        try:
            return await request
        except httpx.HTTPError:
            return None


async def drive(url: str, path: str, tally: Score, *, clients: int, seconds: float) -> None:
    """Let `clients` use the endpoints at `path` for `seconds`; every other one only reads.

    Each has a connection and a cookie jar of its own, and is seeded alike in every phase.
    """
    board: list[int] = []
    deadline = time.monotonic() + seconds

    async def one(number: int) -> None:
        async with httpx.AsyncClient(base_url=url, timeout=_TIMEOUT, trust_env=False) as http:
            client = Client(http, path, tally, board, random.Random(number), deadline)  # noqa: S311 - not a secret
            await (client.only_read() if number % 2 else client.write_and_read())

    async with asyncio.TaskGroup() as group:
        for number in range(clients):
            group.create_task(one(number))
