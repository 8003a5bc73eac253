"""A process with a Router in it that is kept from its event loop; says on standard output what became of the nodes.

python busy.py LOOP HOW COUNTING PRIMARY REPLICA...
"""

import asyncio
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import uvloop
from sqlalchemy import text

from lagwise import Policy, Router
from lagwise._nodes import probe, prober
from lagwise._pools import patience
from lagwise.testing import wait_until

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
POLICY = Policy(probe_interval=0.05, probe_timeout=0.2, abort_after=0.5)
KEPT = 0.8  # seconds; longer than any bound of the policy
unreachable: list[str] = []


class Heard(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        if getattr(record, "standing", None) == "unreachable":
            unreachable.append(f"{record.node}: {record.error}")  # type: ignore[attr-defined]


def compute() -> None:
    """An endpoint that computes on the event loop, again and again."""
    end = time.monotonic() + KEPT
    while time.monotonic() < end:
        pass


def stop() -> None:
    """The whole process is stopped, by itself, and continued from outside."""
    os.kill(os.getpid(), signal.SIGSTOP)


async def during_probes(db: Router, act: Callable[[], None]) -> None:
    """Act six times, each right after a probe has sent its question, or begins to connect: answers wait in sockets."""
    ask, connect, begun, acted = probe.ask, prober.Prober._connect, 0, 0

    def acting() -> None:
        nonlocal acted
        act()
        acted += 1

    def begin() -> None:
        nonlocal begun
        if begun < 6:
            begun += 1
            asyncio.get_running_loop().call_soon(acting)

    async def asking(*question: Any, **how: Any) -> Any:
        begin()
        return await ask(*question, **how)

    async def connecting(self: prober.Prober, seconds: float) -> Any:
        begin()
        return await connect(self, seconds)

    prober.ask = asking  # type: ignore[attr-defined]
    prober.Prober._connect = connecting  # type: ignore[method-assign]
    for watch in db._nodes.monitor._watches.values():
        watch.prober._driver.terminate()  # the next probe connects
    await wait_until(lambda: acted == 6, timeout=60, what="six probes")


async def threads() -> None:
    """Forty synchronous endpoints that hold the interpreter."""
    working = [threading.Thread(target=compute) for _ in range(40)]
    for thread in working:
        thread.start()
    while any(thread.is_alive() for thread in working):
        await asyncio.sleep(0.01)


async def write(db: Router) -> None:
    """A write that waits for its answer all the time: a silent primary's would be cut off."""
    async with db.write.begin() as session:
        await session.execute(text("SELECT pg_sleep(600)"))


async def main(how: str, urls: list[str]) -> None:
    logging.getLogger("lagwise").addHandler(Heard())
    logging.getLogger("lagwise").setLevel(logging.INFO)
    async with Router(urls[0], urls[1:], policy=POLICY) as db:
        await wait_until(lambda: db.view.fresh(time.monotonic() - 1) == len(urls) - 1, what="fresh replicas")
        writing = asyncio.create_task(write(db))
        tally = db.pools["primary"].writes.counters
        await wait_until(lambda: list(tally.in_use()), what="the write under way")
        await (threads() if how == "threads" else during_probes(db, {"computing": compute, "stopped": stop}[how]))
        end = time.monotonic()
        # A probe that was under way has been judged when its node has answered the next one.
        await wait_until(lambda: db.view.heard_from_all(end), timeout=60, what="every node answers a later probe")
        if writing.done():
            unreachable.append("the write was cut off")
        writing.cancel()
        await asyncio.wait({writing})
    sys.stdout.write(str(unreachable))


def naive(self: patience.Patience) -> None:
    """A plain timer."""
    self._left = 0
    self._handle = self._loop.call_later(self._tick * 20, self._ticked)


if __name__ == "__main__":
    loop, how, counting, *urls = sys.argv[1:]
    if counting == "naive":
        patience.Patience._wait = naive  # type: ignore[method-assign]
    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(main(how, urls))
