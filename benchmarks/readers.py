"""Readers in loops, and what became of each read: how long it took, whether it failed, whether it ended at all."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

_FAREWELL = 10.0  # seconds


@dataclass(frozen=True, slots=True)
class Read:
    """One read: when it began, by `time.perf_counter`, and its seconds until it ended, well or badly."""

    began: float
    took: float

    @property
    def ended(self) -> float:
        return self.began + self.took


@dataclass(slots=True)
class Readers:
    """Some readers, each with one read after the other, and all their reads."""

    run: Callable[[], Awaitable[object]]
    pause: float = 0.0
    """Seconds between two reads of a reader, on average."""
    reads: list[Read] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    """By the name of the error."""
    hung: int = 0
    """Reads that did not end."""
    _begun: dict[int, float] = field(default_factory=dict)
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)
    _stopped: bool = False
    _closed: bool = False

    def start(self, count: int) -> None:
        """So many readers at once."""
        self._tasks += [asyncio.create_task(self._read(number)) for number in range(count)]

    async def stop(self, patience: float) -> None:
        """Let all reads end. A read that takes `patience` seconds from now on hangs, and its reader is given up."""
        self._stopped = True
        await asyncio.wait(self._tasks, timeout=patience)
        self._closed = True
        now = time.perf_counter()
        self.hung = len(self._begun)
        self.reads += [Read(began, now - began) for began in self._begun.values()]

    async def give_up(self) -> None:
        """Cut off what still runs. A plain session in a black hole does not even hear of it: heal that first."""
        self._stopped = self._closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks, timeout=_FAREWELL)

    def between(self, start: float, end: float = float("inf")) -> list[float]:
        """The seconds of the reads that began and ended in this time."""
        return [read.took for read in self.reads if start <= read.began and read.ended <= end]

    def since(self, moment: float) -> list[float]:
        """The seconds of the reads that were in flight at this moment, or began later."""
        return [read.took for read in self.reads if read.ended > moment]

    async def _read(self, number: int) -> None:
        while not self._stopped:
            if self.pause:
                await asyncio.sleep(self.pause * random.uniform(0.5, 1.5))
            began = self._begun[number] = time.perf_counter()
            error: Exception | None = None
            try:
                await self.run()
            except Exception as failed:
                error = failed
            if self._closed:
                return
            del self._begun[number]
            self.reads.append(Read(began, time.perf_counter() - began))
            if error is not None:
                self.errors[type(error).__name__] += 1


@asynccontextmanager
async def at_work(run: Callable[[], Awaitable[object]], count: int, pause: float = 0.0) -> AsyncIterator[Readers]:
    """So many readers while the block runs, which stops them."""
    readers = Readers(run, pause)
    readers.start(count)
    try:
        yield readers
    finally:
        await readers.give_up()
