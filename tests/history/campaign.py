"""One seed: a cluster, worker processes, clients over HTTP, a schedule of faults, and then the judgement."""

import asyncio
import random
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import httpx

from lagwise import Policy, Reason
from lagwise.testing import Cluster, wait_until
from lagwise.testing.history import (
    SESSION,
    Checker,
    History,
    Operation,
    Recorder,
    Version,
    Violation,
    answers,
    check,
    staleness_bound,
)
from lagwise.testing.schedule import Schedule, Step

from .application import FRESH, prepare, survivors
from .workers import HANGS, KEYS, STRANGE, another, outside, serves, worker

WORKERS, CLIENTS, LANES = 2, 6, 3
CONNECTIONS = 100  # of each node: more than the workers ever want
TURNED_BACK = 30.0  # seconds after the beginning of a promotion that is undone; its writes are gone long before
Survived = Mapping[Version, tuple[str, str | None]]
POLICY = Policy(
    max_lag=2.0,
    sticky_window=2.0,
    probe_interval=0.2,
    abort_after=2.0,
    guarantee="session",
    without_primary="refuse",
)


@dataclass(frozen=True)
class Result:
    """What a run has shown."""

    schedule: Schedule
    history: History
    violations: list[Violation]
    log: str

    def __str__(self) -> str:
        operations = self.history.operations
        tally = Counter(f"{op.kind} {op.outcome}" for op in operations)
        lost = sum(op.outcome == "ok" and op.kind == "write" for op in operations) - sum(
            self.history.acknowledged(op) for op in operations
        )
        reads = [f"{op.node}".partition("reason=")[2].rstrip("]") for op in operations if op.kind == "read"]
        reasons = ", ".join(f"{reason or 'none'} {count}" for reason, count in sorted(Counter(reads).items()))
        slowest = max((op.end - op.start for op in operations), default=0.0)
        counts = ", ".join(f"{count} {what}" for what, count in sorted(tally.items()))
        return (
            f"{len(operations)} operations: {counts}; reads by reason: {reasons}; "
            f"{lost} acknowledged writes lost by failover; slowest {slowest:.1f} s; "
            f"violations: {dict(Counter(violation.guarantee for violation in self.violations)) or 'none'}"
        )

    def stories(self, most: int = 5) -> str:
        """The first violations of each guarantee."""
        told: Counter[str] = Counter()
        chosen = []
        for violation in self.violations:
            told[violation.guarantee] += 1
            if told[violation.guarantee] <= most:
                chosen.append(str(violation))
        return "\n".join(chosen)


class Client:
    """One user: requests in several lanes at once that share a cookie jar, or one after the other by header."""

    def __init__(self, number: int, seed: int, urls: list[str], recorder: Recorder) -> None:
        self.name = f"client-{number}"
        self.by_header = number % 3 == 2
        self.lanes = 1 if self.by_header else LANES
        self._random = random.Random(f"{seed} {number}")
        self._urls = urls
        self._recorder = recorder
        self._token = ""
        self._count = 0
        self._last_key = "k0"

    async def run(self, stopping: asyncio.Event) -> None:
        """Ask and ask until told to stop."""
        limits = httpx.Limits(max_connections=2 * LANES)
        async with (
            httpx.AsyncClient(timeout=2 * HANGS, limits=limits, trust_env=False) as http,
            asyncio.TaskGroup() as group,
        ):
            for _ in range(self.lanes):
                group.create_task(self._lane(http, stopping))

    async def _lane(self, http: httpx.AsyncClient, stopping: asyncio.Event) -> None:
        now = asyncio.get_running_loop().time
        mood, until = 0.0, 0.0
        while not stopping.is_set():
            if now() > until:  # users write a lot, or little, or nothing for longer than the sticky window
                mood, until = self._random.choice((0.0, 0.05, 0.5)), now() + self._random.uniform(1, 5)
            if self._random.random() < mood:
                await self._ask(http, "write", self._random.choice(self._keys()))
            else:
                await self._ask(http, "read", self._random.choice((self._last_key, *self._keys()[:1])))
            await asyncio.sleep(self._random.choice((0, 0, 0.01, 0.05, 0.1)))

    def _keys(self) -> list[str]:
        return [f"k{number}" for number in self._random.sample(range(KEYS), KEYS)]

    async def _ask(self, http: httpx.AsyncClient, kind: Any, key: str) -> None:
        how = "plain" if kind == "write" else self._random.choices(("plain", "snapshot", "fresh"), (6, 1, 1))[0]
        url = f"{self._random.choice(self._urls)}/{how}/{key}"
        if kind == "write":
            self._count += 1
            self._last_key = key
        value = f"{self.name}-{self._count}" if kind == "write" else None
        headers = {"Lagwise-Token": self._token} if self.by_header else {}
        start = self._recorder.now()
        token = self._token or "; ".join(f"{cookie.name}={cookie.value}" for cookie in http.cookies.jar)
        answer, error = None, None
        try:
            if value is not None:
                answer = await http.put(f"{url}/{value}", headers=headers)
            else:
                answer = await _get(http, url, headers)
        except httpx.TransportError as failure:
            error = type(failure).__name__
        end = self._recorder.now()
        if self.by_header:
            http.cookies.clear()
            if answer is not None:
                self._token = answer.headers.get("Lagwise-Token", self._token)
        done = Operation(client=self.name, kind=kind, key=key, value=value, start=start, end=end, token=token or None)
        self._recorder.operations.append(_judged(done, how, answer, error))


async def _get(http: httpx.AsyncClient, url: str, headers: dict[str, str]) -> httpx.Response:
    # After a 500 (a write's may be one) uvicorn closes the connection unannounced. What a browser then does, too:
    try:
        return await http.get(url, headers=headers)
    except (httpx.ReadError, httpx.RemoteProtocolError):
        return await http.get(url, headers=headers)


def _judged(done: Operation, how: str, answer: httpx.Response | None, error: str | None) -> Operation:
    route = answer.headers.get("Lagwise-Route", "") if answer is not None else ""
    if answer is None or answer.status_code != 200:
        error = error or str(answer.status_code if answer is not None else "")
        # 503 says that nothing was sent; anything else may have been committed.
        failed = done.kind == "read" or error == "503"
        return replace(done, outcome="failed" if failed else "unknown", error=error, node=f"[{how}: {route}]")
    said = answer.json()
    version = Version(said["timeline"], said["number"]) if said["number"] is not None else None
    return replace(done, value=said["value"], version=version, node=f"{said['node']} [{how}: {route}]")


async def run(
    seed: int, seconds: float, *, policy: Policy = POLICY, tell: Callable[[str], None] = lambda _: None
) -> Result:
    """Run the schedule of a seed under load and judge what the clients saw."""
    names = tuple(f"worker-{number}" for number in range(1, WORKERS + 1))
    schedule, stopping = Schedule.from_seed(seed, seconds, processes=names, stranger=True), asyncio.Event()
    async with AsyncExitStack() as stack:
        cluster = await stack.enter_async_context(Cluster(replicas=2, settings={"max_connections": CONNECTIONS}))
        await prepare(cluster)
        stranger = await stack.enter_async_context(another(cluster))
        log = stack.enter_context(tempfile.TemporaryFile("w+"))  # noqa: SIM115 - the stack closes it
        workers = await asyncio.gather(*(stack.enter_async_context(worker(cluster, policy, log)) for _ in names))
        urls = [each.url for each in workers]
        recorder, undone = Recorder(), list[float]()

        def begins(step: Step) -> None:
            tell(f"{recorder.now():8.2f} {step}")
            if step.fault == "undone":
                undone.append(recorder.now())

        load = [asyncio.create_task(Client(number, seed, urls, recorder).run(stopping)) for number in range(CLIENTS)]
        try:
            await schedule.run(cluster, begins, outside(cluster, stranger, dict(zip(names, workers, strict=True))))
            await recovered(urls)
        finally:
            stopping.set()
            await asyncio.gather(*load)
        survived = await survivors(cluster)
        gone = {op.version for op in recorder.operations if turned_back(op, undone, survived)}
        kept = [op for op in recorder.operations if not turned_back(op, undone, survived) and op.version not in gone]
        history = History(tuple(kept), survived)
        assert not (await survivors(stranger)).keys() - STRANGE.keys(), "something was written on a stranger's node"
        log.seek(0)
        return Result(schedule, history, judge(history, policy), log.read())


def judge(history: History, policy: Policy) -> list[Violation]:
    """What was promised, and is not so."""
    guarantees: list[Checker] = [*SESSION, partial(answers, within=HANGS)]
    # Where nobody could bound the staleness, the answer says so.
    bounded = _only(history, lambda route: f"reason={Reason.NO_PRIMARY}" not in route)
    asked = _only(history, lambda route: "[fresh" in route)
    return (
        check(history, guarantees)
        + check(bounded, [partial(staleness_bound, seconds=policy.max_lag)])
        + check(asked, [partial(staleness_bound, seconds=FRESH)])
    )


def _only(history: History, routed: Callable[[str], bool]) -> History:
    """The writes, and the reads that went such a way."""
    kept = (op for op in history.operations if op.kind == "write" or routed(op.node or ""))
    return History(tuple(kept), history.survived)


def turned_back(op: Operation, undone: list[float], survived: Survived) -> bool:
    """Whether this was done on a promoted node that was turned back, and went with it.

    Versions are in order over promotions that last. Of one that is undone they say nothing: what was written before it
    survives, and so does what is written afterwards, on a lower timeline.
    """
    lost = op.version is not None and op.version not in STRANGE and survived.get(op.version) != (op.key, op.value)
    return lost and any(since <= op.end <= since + TURNED_BACK for since in undone)


async def recovered(urls: list[str]) -> None:
    """Once the cluster is whole, every worker reads from both replicas again, without a restart."""
    for url in urls:
        await wait_until(partial(serves, url, "replicas"), timeout=30, what=f"{url} has both replicas", interval=0.5)
