"""`Cluster.restore()` leaves nothing of a test to the next one."""

import asyncpg  # type: ignore[import-untyped]

from lagwise.testing import Cluster


async def test_every_fault_is_undone(cluster: Cluster) -> None:
    """Killed, cut off, silent, slow, paused and delayed at once: then each node answers, and shows all there is."""
    one, two = cluster.replicas
    await cluster.set_apply_delay(one, 60)
    await cluster.pause_replay(one)
    await cluster.black_hole(one)
    await cluster.partition(one)
    await cluster.cut(two)
    await cluster.kill(two)
    cluster.primary.proxy.latency = 5.0
    await cluster.primary.execute("INSERT INTO note VALUES (1)")
    await cluster.restore()
    for node in cluster.nodes.values():
        connection = await asyncpg.connect(node.url.replace("+asyncpg", ""), timeout=4)
        assert await connection.fetchval("SELECT count(*) FROM note") == 1
        await connection.close()
    await cluster.primary.execute("INSERT INTO note VALUES (2)")
    await cluster.caught_up()
    assert [await node.fetchval("SELECT count(*) FROM note") for node in cluster.replicas] == [2, 2]


async def test_a_promotion_stays() -> None:
    """Roles are not undone: the nodes that do not follow are left alone, and the others are waited for."""
    async with Cluster(replicas=2) as cluster:
        await cluster.stop("primary")  # it sends both replicas all it has: neither is past the fork
        await cluster.promote("replica-1")
        await cluster.follow("replica-2")
        await cluster.pause_replay("replica-2")
        await cluster.restore()
        assert cluster.primary is cluster["replica-1"]
        assert {name: await node.fetchval("SELECT pg_is_in_recovery()") for name, node in cluster.nodes.items()} == {
            "primary": False,
            "replica-1": False,
            "replica-2": True,
        }
