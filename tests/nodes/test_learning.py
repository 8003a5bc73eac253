"""What is read from a node, rarely, and sooner when it is asked for."""

from time import monotonic
from typing import Any

import pytest

from lagwise import Policy
from lagwise._decide.view import Node, View
from lagwise._nodes.learning import Learning
from lagwise._nodes.monitor import Monitor
from lagwise._nodes.prober import Prober
from lagwise._pools.pools import Pools
from lagwise.testing import Cluster, wait_until


class Stub:
    """A prober over whose connection something can be asked."""

    async def run(self, call: Any, seconds: float) -> Any:
        return await call("connection", seconds)


async def test_once_and_again_when_asked_ten_seconds_later(caplog: pytest.LogCaptureFixture) -> None:
    """Every node that answers offers itself; a reading that fails is said, and made again ten seconds later."""
    now, asked = 0.0, list[object]()

    async def read(driver: object, _timeout: float) -> int:
        asked.append(driver)
        if len(asked) == 2:
            raise OSError
        return len(asked)

    learning = Learning(read, 0, lambda: now)
    node: Any = Stub()
    await learning.from_node(node)
    await learning.from_node(node)
    assert (learning.value, len(asked)) == (1, 1)
    now = 5.0
    learning.again()
    await learning.from_node(node)
    assert len(asked) == 1  # too soon
    now = 10.0
    await learning.from_node(node)
    assert (learning.value, len(asked), caplog.messages) == (1, 2, ["catalog-unread: error=lost, OSError"])
    now = 19.0
    await learning.from_node(node)
    assert len(asked) == 2
    now = 20.0
    await learning.from_node(node)
    assert (learning.value, len(asked)) == (3, 3)


async def test_once_a_minute_when_it_is_quick() -> None:
    """What others change is seen within a minute; a reading of a second takes a thousandth of the time."""
    now, takes, asked = 0.0, 0.0, 0
    answers, told = [1, 1, 2, 3], list[int]()

    async def read(_driver: object, _timeout: float) -> int:
        nonlocal now, asked
        now, asked = now + takes, asked + 1
        return answers[asked - 1]

    learning = Learning(read, 0, lambda: now, told.append)
    node: Any = Stub()
    for moment, count in ((0.0, 1), (59.9, 1), (60.0, 2), (119.9, 2)):
        now = moment
        await learning.from_node(node)
        assert (asked, told) == (count, [1])
    now, takes = 120.0, 1.0
    for moment, count in ((120.0, 3), (1120.9, 3), (1121.0, 4)):
        now = moment
        await learning.from_node(node)
        assert (asked, told) == (count, [1, 2, 3][: count - 1])


async def test_the_monitor_reads_it_from_the_first_node_that_answers(cluster: Cluster) -> None:
    """Over its own connection, between two probes."""

    async def names(driver: Any, timeout: float) -> set[str]:
        return {row[0] for row in await driver.fetch("SELECT proname FROM pg_proc LIMIT 3", timeout=timeout)}

    policy = Policy(probe_interval=0.05)
    pools = Pools("primary", cluster.primary.url, weight=1, options={})
    prober = Prober(pools.monitoring, alone=True, timeout=1, clock=monotonic)
    view = View.of([Node(name="primary")])
    monitor = Monitor(
        view, {"primary": prober}, policy, monotonic, {"primary": pools.traffic}, catalog=set(), read_catalog=names
    )
    await monitor.start()
    await wait_until(lambda: len(monitor.catalog) == 3, what="the catalog")
    await monitor.stop()
    await pools.monitoring.dispose()
