"""Asks all nodes at the same time; every connect and every question is bounded by the time-out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, TypeVar

import asyncpg  # type: ignore[import-untyped]

from lagwise._decide.failure import Cause, cause_of
from lagwise._decide.node import Role
from lagwise._nodes.probe import ask
from lagwise._pools.driver import TransactionPooler
from lagwise._pools.patience import Patience, patient
from lagwise._pools.pooler import Pooler
from lagwise.cli.doctor.arithmetic import room
from lagwise.cli.doctor.facts import Facts, Lag, censored
from lagwise.cli.doctor.membership import leader, members
from lagwise.cli.doctor.named import Named
from lagwise.cli.doctor.questions import APPLICATION, POSITION, QUESTIONS, Question, replay, settings

T = TypeVar("T")

MORE = 3
"""The connections beside the first that show whether an address leads to one server."""
SPARE = 8
"""With fewer connections left on a server they are not tried: each is taken from the application for a moment."""
WAIT = 1.0
"""Seconds for which replicas may catch up with what the primary had."""
_POLL = 0.05  # seconds
_LOOKS = 5  # in a row that show the same receiver; PostgreSQL begins a new one every 5 s by default
_TRIES = 5  # a replica that catches up may cancel any statement (40001)
_NEVER = 1e6  # seconds: the time-outs here are counted by Patience


async def ask_all(nodes: Sequence[Named], *, timeout: float) -> tuple[Facts, ...]:  # noqa: ASYNC109 - a server's
    """What all nodes answer; `timeout` is seconds, for each connect and for each question. Nothing stays open."""
    interviews = [Interview(node, timeout) for node in nodes]
    # A connect that is cut off leaves asyncpg a future that has failed, of which the loop would write a page at exit.
    asyncio.get_running_loop().set_exception_handler(lambda _loop, _context: None)
    try:
        facts = await asyncio.gather(*(one.run() for one in interviews))
        facts = await asyncio.gather(*(one.catch_up(facts) for one in interviews))
        await asyncio.gather(*(one.close() for one in interviews))
    finally:
        for one in interviews:  # also when this is cancelled
            one.end()
    hidden = {text for node in nodes for text in node.hidden} - {node.name for node in nodes}
    return tuple(censored(one, hidden) for one in facts)


class Interview:
    """The questions to one node."""

    def __init__(self, node: Named, timeout: float) -> None:
        self._node = node
        self._timeout = timeout
        self._driver: Any = None
        self._failed = list[tuple[str, Cause]]()
        self._facts = Facts(name=node.name, expected=node.expected)

    async def run(self) -> Facts:
        """All but the lag, which needs the primary's answer. Does not raise for what a server does."""
        try:
            self._driver = await self._connect()
            await self._settle()
        except Exception as error:
            return replace(self._facts, cause=cause_of(error), unanswered=tuple(self._failed))
        return replace(self._facts, unanswered=tuple(self._failed))

    async def catch_up(self, nodes: Sequence[Facts]) -> Facts:
        """The facts with the lag: how far this replica is behind what the primary had, and for how long."""
        own = next(facts for facts in nodes if facts.name == self._node.name)
        lead, reading = leader(nodes), own.reading
        if lead is None or lead.reading is None or reading is None or reading.role is not Role.REPLICA:
            return own
        if own.cause is not None or own not in [facts for facts, _ in members(nodes)]:
            return own
        if reading.timeline != lead.reading.timeline:  # positions of two timelines are compared with nothing
            return own
        # What is not flushed is not handed on.
        target = min(lead.reading.lsn, lead.reading.flushed)
        try:
            return replace(own, lag=await self._lag(target, lead.clock or 0.0))
        except Exception as error:
            if self._driver.is_closed():
                return replace(own, cause=cause_of(error))
            return replace(own, unanswered=(*own.unanswered, ("lag", cause_of(error))))

    async def close(self) -> None:
        """End the connection in order, so that the server has nothing to log."""
        if self._driver is not None and not self._driver.is_closed():
            with suppress(Exception):
                await self._driver.close(timeout=1.0)

    def end(self) -> None:
        """Cut the connection off, if it is still there."""
        if self._driver is not None and not self._driver.is_closed():
            self._driver.terminate()

    async def _settle(self) -> None:
        """Ask one question after the other. Each may fail alone, until the connection is gone."""
        self._facts = replace(self._facts, pooler=await self._pooler())
        self._facts = await self._ask(settings)
        failure: Exception | None = None
        try:
            reading = await self._asked(self._driver, self._read)
        except Exception as error:
            if self._driver.is_closed():
                raise
            failure = error  # a node that its monitor cannot read; the rest may tell why
        else:
            servers = {reading.server} if reading.server is not None else set()
            self._facts = replace(self._facts, reading=reading, servers=frozenset(servers), connected=1)
        for name, question in QUESTIONS:
            try:
                self._facts = await self._ask(question)
            except Exception as error:
                if self._driver.is_closed():
                    raise
                self._failed.append((name, cause_of(error)))
        if failure is not None:
            raise failure
        await self._wait_for_receiver()
        await self._look_around()

    async def _ask(self, question: Question) -> Facts:
        return await self._asked(self._driver, lambda driver, _: question(driver, self._facts))

    async def _wait_for_receiver(self) -> None:
        """A receiver that begins, or begins again, streams within a moment; one that cannot goes on beginning.

        Each time that it begins it says "streaming" for some milliseconds: one that streams is the same in all looks.
        """
        if self._facts.replay is None:
            return
        began, looks = time.monotonic(), list[int | None]()
        while True:
            receiver = self._facts.replay.receiver if self._facts.replay is not None else None
            looks.append(receiver.pid if receiver is not None and not self._facts.lacks_stream else None)
            if looks[-1] is not None and looks[-_LOOKS:] == [looks[-1]] * _LOOKS:
                return
            if time.monotonic() - began > WAIT:
                break
            await asyncio.sleep(_POLL)
            self._facts = await self._ask(replay)
        if receiver is not None and self._facts.replay is not None and receiver.status == "streaming":
            again = replace(self._facts.replay, receiver=replace(receiver, status="restarting"))
            self._facts = replace(self._facts, replay=again)

    @staticmethod
    async def _read(driver: Any, patience: Patience) -> Any:
        return await ask(driver, alone=False, patience=patience, clock=time.monotonic)

    async def _look_around(self) -> None:
        """See which servers further connections lead to: not where the application may need every one of them."""
        there, used = room(self._facts), self._facts.connections
        if there is not None and used is not None and there.free - used.own < SPARE:
            return
        found = [one for one in await asyncio.gather(*(self._elsewhere() for _ in range(MORE))) if one is not None]
        servers = self._facts.servers | set(found)
        self._facts = replace(self._facts, servers=servers, connected=self._facts.connected + len(found))

    async def _elsewhere(self) -> tuple[int, int, int] | None:
        driver: Any = None
        try:
            driver = await self._connect()
            reading = await self._asked(driver, self._read)
            await driver.close(timeout=1.0)
        except Exception:
            return None
        else:
            server: tuple[int, int, int] | None = reading.server
            return server
        finally:
            if driver is not None and not driver.is_closed():
                driver.terminate()

    async def _lag(self, target: int, clock: float) -> Lag:
        began, first = time.monotonic(), None
        while True:
            row = await self._asked(self._driver, lambda driver, _: driver.fetchrow(POSITION))
            behind = max(0, target - row["replayed"])
            first = behind if first is None else first
            waited = time.monotonic() - began
            if not behind:
                return Lag(bytes=first, seconds=waited if first else 0.0, caught_up=True)
            if waited > WAIT:
                # A commit has the time of the primary's clock.
                age = None if row["commit"] is None else max(waited, time.time() + clock - row["commit"])
                return Lag(bytes=behind, seconds=age, caught_up=False)
            await asyncio.sleep(_POLL)

    async def _pooler(self) -> str | None:
        pid = await self._asked(self._driver, lambda driver, _: driver.fetchval("SELECT pg_backend_pid()"))
        if pid == self._driver.get_server_pid():
            return None
        try:
            await Pooler().check(self._driver, self._connect, pid)
        except TransactionPooler:
            return "transaction"
        finally:
            if self._driver.is_closed():  # it waited in vain for a server process, which is an answer
                self._driver = await self._connect()
        return "session"

    async def _connect(self) -> Any:
        arguments = {
            **self._node.arguments(),
            "timeout": _NEVER,
            "statement_cache_size": 0,
            "server_settings": {"application_name": APPLICATION},
        }
        async with patient(self._timeout):
            return await asyncpg.connect(**arguments)

    async def _asked(self, driver: Any, question: Callable[[Any, Patience], Awaitable[T]]) -> T:
        """The answer to one question; `TimeoutError` when it does not come in time, and the connection is ended."""
        milliseconds = max(1, round(self._timeout * 1000))
        for _ in range(_TRIES - 1):
            with suppress(asyncpg.SerializationError):
                return await self._once(driver, question, milliseconds)
        return await self._once(driver, question, milliseconds)

    async def _once(self, driver: Any, question: Callable[[Any, Patience], Awaitable[T]], milliseconds: int) -> T:
        with Patience(self._timeout, driver.terminate) as patience:
            try:
                async with driver.transaction(isolation="read_committed", readonly=True):
                    await driver.execute(
                        f"SET LOCAL search_path = pg_catalog, pg_temp; SET LOCAL statement_timeout = {milliseconds}"
                    )
                    return await question(driver, patience)
            except Exception:
                if patience.ran_out:
                    # From None: what the connection said when it was ended would pass for the cause.
                    raise TimeoutError from None
                raise
