"""What the events cost, counted in bytecode instructions: nothing when there is no watcher."""

import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import FrameType
from typing import Any

from sqlalchemy import text

from lagwise import Causality, Router
from lagwise.events import Event
from lagwise.testing import Cluster
from tests.kit.routers import LONG, in_rotation, router
from tests.kit.walk import module_of


async def executed(db: Router) -> Counter[tuple[str, int]]:
    """The instructions of a read, a write and its position, by file and line."""

    async def use() -> None:
        with Causality():
            async with db.read() as session:
                await session.execute(text("SELECT 1"))
            async with db.write.begin() as session:
                await session.execute(text("INSERT INTO item (name) VALUES ('counted')"))

    for _ in range(20):
        await use()
    return min([await once(use) for _ in range(5)], key=Counter.total)  # which replica is drawn makes a difference


async def once(use: Callable[[], Awaitable[None]]) -> Counter[tuple[str, int]]:
    """One use."""
    counted: Counter[tuple[str, int]] = Counter()

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        if module_of(frame.f_code) is None:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            counted[frame.f_code.co_filename, frame.f_lineno or 0] += 1
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        await use()
    finally:
        sys.settrace(before)
    return counted


def of_events(counted: Counter[tuple[str, int]]) -> int:
    """Instructions in the modules of events, and on lines that ask for the watcher or call it."""
    files = {name for name, _ in counted}
    lines = {name: Path(name).read_text().splitlines() for name in files}
    modules = ("events.py", "log.py")
    return sum(
        count for (name, line), count in counted.items() if name.endswith(modules) or "watcher" in lines[name][line - 1]
    )


async def test_events_cost_nothing_without_a_watcher(cluster: Cluster) -> None:
    """No event is made: a read, a write and its position ask three times whether there is a watcher."""
    seen: list[Event] = []
    async with (
        router(cluster, LONG, pool_size=2) as db,
        router(cluster, LONG, pool_size=2, on_event=seen.append) as other,
    ):
        await in_rotation(db, "replica-1", "replica-2")
        await in_rotation(other, "replica-1", "replica-2")
        without, watched = await executed(db), await executed(other)
    assert not [name for name, _ in without if name.endswith(("events.py", "log.py"))]
    assert 0 < of_events(without) <= 3 * 8 < of_events(watched)
    assert [type(event).__name__ for event in seen[-3:]] == ["Routed", "Routed", "PositionAsked"]
    assert without.total() < watched.total()
