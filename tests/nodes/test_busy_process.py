"""A probe's time-out measures the server, not how busy this process is."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lagwise.testing import Cluster

SCRIPT = Path(__file__).with_name("busy.py")


async def lost(cluster: Cluster, loop: str, how: str, counting: str = "patient") -> str:
    """The nodes that a busy process has lost sight of, by its own words."""
    urls = [node.direct_url for node in cluster.nodes.values()]
    process = await asyncio.create_subprocess_exec(
        sys.executable, SCRIPT, loop, how, counting, *urls, stdout=subprocess.PIPE
    )

    async def wake() -> None:
        while True:
            await asyncio.sleep(0.8)  # stopped for longer than any time-out; the kernel does not tell when it began
            os.kill(process.pid, signal.SIGCONT)

    waking = asyncio.create_task(wake())
    try:
        said, _ = await process.communicate()
    finally:
        waking.cancel()
    assert process.returncode == 0
    return said.decode().strip()


@pytest.mark.parametrize("how", ["computing", "threads", "stopped"])
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
async def test_a_healthy_server_is_never_unreachable(cluster: Cluster, loop: str, how: str) -> None:
    """The event loop is held for seconds, by an endpoint, threads or a stop of the process: nodes and a write stay."""
    assert await lost(cluster, loop, how) == "[]"


async def test_a_plain_timer_measures_the_process(cluster: Cluster) -> None:
    """The same with a plain timer: uvloop runs timers before it looks at sockets, and healthy nodes are lost."""
    for _ in range(5):  # whether a timer or a socket is looked at first is a matter of luck
        said = await lost(cluster, "uvloop", "computing", "naive")
        if "TimeoutError" in said:
            break
    assert "TimeoutError" in said
