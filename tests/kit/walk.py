"""The way of one request through lagwise: which of its functions are called, in which files, and which calls climb.

A *call* is one execution of a function, a coroutine or a generator that is defined in lagwise, properties, lambdas and
comprehensions with a frame of their own included; a coroutine that waits and goes on is still one call. A *file* is a
module with at least one call. A *climb* is a call straight from lagwise to lagwise whose function belongs to a higher
layer than its caller, by the layers of the contract in pyproject.toml; a callback that was handed down is one, however
it was handed down. What a framework calls, FastAPI or SQLAlchemy, has no caller in lagwise and does not climb. The test
cluster's own code and a Router's monitor, which probes beside every request, are left out. Greenlets are followed.

`python -m tests.kit.walk` prints a GET with a token and a POST, through FastAPI and the middleware on a real cluster.
"""

import asyncio
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import httpx
from fastapi import FastAPI
from sqlalchemy import text

import lagwise
from lagwise import Policy, Router
from lagwise.fastapi import CausalityMiddleware, ReadSession, WriteSession, lifespan
from lagwise.testing import Cluster, wait_until

HOUSE = Path(lagwise.__file__).parent
PYPROJECT = HOUSE.parents[1] / "pyproject.toml"
# Requests until connections are open and statements prepared, and requests of which the longest walk is taken.
_WARM, _WALKS = 20, 20


def layers() -> list[set[str]]:
    """The layers of the contract, from the highest down: the modules and folders of each."""
    contracts = tomllib.loads(PYPROJECT.read_text())["tool"]["importlinter"]["contracts"]
    rows = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    return [set(row.replace("|", " ").replace(":", " ").split()) for row in rows]


def module_of(code: CodeType) -> str | None:
    """The module of lagwise that this code is from, without the test cluster's; None for any other code."""
    return _module(code.co_filename)


@cache
def _module(file: str) -> str | None:
    path = Path(file)
    if not path.is_relative_to(HOUSE):
        return None
    name = ".".join(("lagwise", *path.relative_to(HOUSE).with_suffix("").parts)).removesuffix(".__init__")
    return None if name.startswith("lagwise.testing") else name


@dataclass(frozen=True, slots=True)
class Call:
    """One call: the function, and the function of lagwise that made it, if lagwise did."""

    module: str
    function: str
    caller_module: str | None
    caller: str | None

    def __str__(self) -> str:
        by = f" <- {self.caller_module}.{self.caller}" if self.caller else ""
        return f"{self.module}.{self.function}{by}"


@dataclass
class Walk:
    """The calls in their order."""

    calls: list[Call] = field(default_factory=list)

    @property
    def files(self) -> list[str]:
        """The modules with a call, by name."""
        return sorted({call.module for call in self.calls})

    @property
    def climbs(self) -> list[Call]:
        """The calls from a lower layer to a higher one."""
        heights = layers()

        def depth(module: str) -> int | None:
            """How far below the top the layer of a module is; None for a module in no layer."""
            within = [n for n, row in enumerate(heights) if any(f"{module}.".startswith(f"{one}.") for one in row)]
            return within[0] if within else None

        found = []
        for call in self.calls:
            if call.caller_module is not None:
                to, by = depth(call.module), depth(call.caller_module)
                if to is not None and by is not None and to < by:
                    found.append(call)
        return found

    def __str__(self) -> str:
        return f"{len(self.calls)} calls, {len(self.files)} files, {len(self.climbs)} climbs"


@contextmanager
def walked() -> Iterator[Walk]:
    """The walk of what runs in the block: in any task of this thread but a monitor's, and in greenlets."""
    walk, seen, modules = Walk(), set[FrameType](), dict[CodeType, str | None]()

    def module(code: CodeType) -> str | None:
        if code not in modules:
            modules[code] = module_of(code)
        return modules[code]

    def profile(frame: FrameType, event: str, _: Any) -> None:
        if event != "call" or frame in seen:
            return  # not a call, or a coroutine that goes on
        name = module(frame.f_code)
        if name is None or _probes():
            return
        seen.add(frame)  # kept alive, so that no other frame is taken for it
        back = frame.f_back
        caller = module(back.f_code) if back is not None else None
        by = back.f_code.co_qualname if back is not None and caller is not None else None
        walk.calls.append(Call(name, frame.f_code.co_qualname, caller, by))

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        yield walk
    finally:
        sys.setprofile(before)
        seen.clear()


def _probes() -> bool:
    """Whether a monitor runs, which probes beside every request: one of its tasks, or a timer of the event loop."""
    try:
        task = asyncio.current_task()
    except RuntimeError:  # no loop
        return False
    return task is None or task.get_name().startswith("lagwise-monitor")


async def walk_requests(cluster: Cluster) -> dict[str, Walk]:
    """The walks of a GET that brings a token, and of a POST, everything warm, both replicas known to have it all.

    Of several walks of one request the longest is taken: the one that drew two replicas and compared their loads.
    """
    primary, *replicas = cluster.nodes.values()
    policy = Policy(probe_interval=0.1, probe_timeout=5, max_lag=600, sticky_window=600, catch_up=0)
    db = Router(primary.url, {node.name: node.url for node in replicas}, policy=policy)
    app = FastAPI(lifespan=lifespan(db))

    @app.get("/walks")
    async def count(session: ReadSession) -> int:
        return int(await session.scalar(text("SELECT count(*) FROM walk")) or 0)

    @app.post("/walks")
    async def create(session: WriteSession) -> None:
        await session.execute(text("INSERT INTO walk DEFAULT VALUES"))

    await primary.execute("CREATE TABLE IF NOT EXISTS walk (id serial)")
    await cluster.caught_up()
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(CausalityMiddleware(app, secret="for tests only"))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            posts, gets = [], []
            await client.post("/walks")
            brought = httpx.Cookies(client.cookies)
            for _ in range(_WARM + _WALKS):
                client.cookies = httpx.Cookies(brought)  # the answers would add a cookie each
                with walked() as post:
                    assert (await client.post("/walks")).status_code == 200
                posts.append(post)
            await cluster.caught_up()
            head = await primary.fetchval("SELECT pg_current_wal_lsn() - '0/0'::pg_lsn")

            def heard() -> bool:
                readings = [node.reading for node in db.view.rotation]
                return len(readings) == len(replicas) and all(one and one.lsn >= head for one in readings)

            await wait_until(heard, what="the Router knows that the replicas have it all")
            assert client.cookies.get("lagwise")
            for _ in range(_WARM + _WALKS):
                client.cookies = httpx.Cookies(brought)  # many writes at once would leave a doubt, and the primary
                with walked() as get:
                    assert (await client.get("/walks")).status_code == 200
                gets.append(get)
    return {
        kind: max(walks[_WARM:], key=lambda walk: len(walk.calls))
        for kind, walks in {"GET with a token": gets, "POST": posts}.items()
    }


async def main() -> None:
    """Print both walks."""
    async with Cluster(replicas=2) as cluster:
        for name, walk in (await walk_requests(cluster)).items():
            print(f"{name}: {walk}", *(f"  {call}" for call in walk.calls), sep="\n")  # noqa: T201
            print("files:", *walk.files, sep="\n  ")  # noqa: T201
            print("climbs:", *walk.climbs, sep="\n  ", end="\n\n")  # noqa: T201


if __name__ == "__main__":
    asyncio.run(main())
