"""What a session costs, beside the sessions people write today: `uv run python -m benchmarks`.

Contestants take turns in one run against one cluster, so that whatever else the machine does meets all of them.
Round trips are counted on the wire; times are medians, in microseconds, and mean something only as ratios.
"""

import argparse
import asyncio
import json
import statistics
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from lagwise import Causality, Policy, Router
from lagwise.testing import Cluster, wait_until

Run = Callable[[], Awaitable[object]]


class Base(DeclarativeBase):
    pass


class Item(Base):
    __tablename__ = "item"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


async def contestants(cluster: Cluster, stack: AsyncExitStack) -> dict[str, dict[str, Run]]:
    """Scenario -> contestant -> one session."""

    def maker(url: str, **options: object) -> async_sessionmaker[AsyncSession]:
        engine = create_async_engine(url, pool_size=20, max_overflow=0, **options)
        stack.push_async_callback(engine.dispose)
        return async_sessionmaker(engine, expire_on_commit=False)

    primary, replica = cluster.primary.url, cluster.replicas[0].url
    # No probe falls into the count; what a session itself asks for still does.
    policy = Policy(probe_interval=600, max_lag=600, sticky_window=600)
    db = await stack.enter_async_context(Router(primary, {"replica-1": replica}, policy=policy))
    await wait_until(lambda: bool(db.view.rotation), what="the replica")

    def read(make: Callable[[], AsyncSession]) -> Run:
        async def run() -> None:
            async with make() as session:
                await session.get(Item, 1)

        return run

    def write(make: Callable[[], AsyncSession]) -> Run:
        async def run() -> None:
            async with make() as session:
                session.add(Item(name="written"))
                await session.commit()

        return run

    async def carried() -> None:
        with Causality():
            await write(db.write)()

    plain, recipe = maker(primary), maker(primary, pool_pre_ping=True)
    return {
        "read": {
            "bare AUTOCOMMIT engine": read(maker(replica, isolation_level="AUTOCOMMIT")),
            "lagwise": read(db.read),
            "AsyncSession": read(maker(replica)),
            "AsyncSession, pool_pre_ping": read(maker(replica, pool_pre_ping=True)),
        },
        "write": {
            "AsyncSession": write(plain),
            "lagwise, nobody to carry a token": write(db.write),
            "lagwise, with its token": carried,
            "AsyncSession, pool_pre_ping": write(recipe),
        },
    }


async def measure(cluster: Cluster, runs: dict[str, Run], rounds: int) -> dict[str, tuple[float, float]]:
    """Contestant -> (round trips per session, median microseconds)."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    trips = dict.fromkeys(runs, 0)
    for run in runs.values():
        for _ in range(30):
            await run()
    for _ in range(rounds):
        for name, run in runs.items():
            before = sum(node.proxy.round_trips for node in cluster.nodes.values())
            for _ in range(20):
                start = time.perf_counter()
                await run()
                times[name].append(time.perf_counter() - start)
            trips[name] += sum(node.proxy.round_trips for node in cluster.nodes.values()) - before
    return {name: (trips[name] / rounds / 20, statistics.median(times[name]) * 1e6) for name in runs}


async def main(rounds: int, delays: list[float]) -> list[dict[str, object]]:
    results: list[dict[str, object]] = []
    async with Cluster(replicas=1) as cluster, AsyncExitStack() as stack:
        engine = create_async_engine(cluster.primary.url)
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
            await connection.execute(text("INSERT INTO item (name) VALUES ('read me')"))
        await engine.dispose()
        await cluster.caught_up()
        scenarios = await contestants(cluster, stack)
        for scenario, runs in scenarios.items():
            for delay in delays:
                for node in cluster.nodes.values():
                    node.proxy.latency = delay
                found = await measure(cluster, runs, rounds if delay == 0 else max(2, rounds // 5))
                recipe = found["AsyncSession, pool_pre_ping"][1]
                print(f"\n{scenario}, {delay * 1000:g} ms added to each send; PostgreSQL {cluster.version}")
                print(f"  {'':34} {'trips':>6} {'us':>8} {'x recipe':>9}")
                for name, (trips, us) in found.items():
                    print(f"  {name:34} {trips:6.2f} {us:8.0f} {us / recipe:9.2f}")
                    results.append({"scenario": scenario, "delay": delay, "name": name, "trips": trips, "us": us})
        for node in cluster.nodes.values():
            node.proxy.latency = 0.0
    return results


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=50, help="rounds of 20 sessions for each contestant")
    parser.add_argument("--delays", type=float, nargs="*", default=[0.0, 0.002], help="seconds added to each send")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    chosen = parser.parse_args()
    figures = asyncio.run(main(chosen.rounds, chosen.delays))
    if chosen.json is not None:
        chosen.json.write_text(json.dumps(figures, indent=1))
