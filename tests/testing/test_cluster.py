"""A real cluster does what its methods say, and the replicas really lag, die, come back and take over."""

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import asyncpg  # type: ignore[import-untyped]
import pytest

from lagwise.testing import Binaries, Cluster, ClusterError, Node, wait_until
from lagwise.testing.processes import alive
from lagwise.testing.replication import configure

# As many of these as there are on this machine: each has traps of its own (see lagwise.testing.server).
MAJORS = (15, 16, 18)


async def note(cluster: Cluster, number: int) -> None:
    await cluster.primary.execute("INSERT INTO note VALUES ($1)", number)


async def notes(node: Node) -> list[int]:
    return [row["id"] for row in await node.fetch("SELECT id FROM note ORDER BY id")]


async def received(cluster: Cluster, name: str) -> None:
    """Wait until a replica has in its WAL what the primary has flushed: what it does not show, it holds back."""
    target = await cluster.primary.fetchval("SELECT pg_current_wal_flush_lsn()::text")
    await wait_until(
        lambda: cluster[name].fetchval("SELECT pg_last_wal_receive_lsn() >= $1::text::pg_lsn", target),
        what=f"{name} has received {target}",
    )


async def test_one_primary_and_replicas_by_name(cluster: Cluster) -> None:
    """Nodes have stable names, and each is what its server says it is."""
    assert list(cluster.nodes) == ["primary", "replica-1", "replica-2"]
    assert cluster.primary is cluster["primary"]
    assert cluster.replicas == (cluster["replica-1"], cluster["replica-2"])
    roles = {name: await node.fetchval("SELECT pg_is_in_recovery()") for name, node in cluster.nodes.items()}
    assert roles == {"primary": False, "replica-1": True, "replica-2": True}
    assert (await cluster.primary.fetchval("SHOW server_version")).split()[0] == cluster.version
    assert cluster.origin
    assert repr(cluster["replica-1"]).startswith("<Node replica-1: replica of primary, running, 127.0.0.1:")


async def test_urls_lead_to_the_node_through_and_past_the_proxy(cluster: Cluster) -> None:
    """``url`` goes through the proxy and is counted, ``direct_url`` is not; both reach the same server."""
    node = cluster["replica-2"]
    node.proxy.reset_counts()
    for url in (node.url, node.direct_url):
        connection = await asyncpg.connect(url.replace("+asyncpg", ""))
        assert await connection.fetchval("SHOW cluster_name") == "replica-2"
        assert await connection.fetchval("SELECT current_database()") == "app"
        await connection.close()
    assert node.proxy.connections == 1


async def test_paused_replay_lags_until_resumed(cluster: Cluster) -> None:
    """A paused replica shows nothing new, the other one does, and ``caught_up`` does not wait for the paused one."""
    await cluster.pause_replay("replica-1")
    await note(cluster, 1)
    await received(cluster, "replica-1")
    await cluster.caught_up()
    assert [await notes(node) for node in cluster.nodes.values()] == [[1], [], [1]]
    await cluster.resume_replay("replica-1")
    await cluster.caught_up()
    assert await notes(cluster["replica-1"]) == [1]


async def test_a_question_outlives_the_replay_that_conflicts_with_it(cluster: Cluster) -> None:
    """A pause that ends may cancel the statement that ended it (40001): it is asked again. Naive: it fails."""
    replica = cluster["replica-1"]
    await configure(replica, "max_standby_streaming_delay", "0")
    resume = "SELECT pg_wal_replay_resume(), pg_sleep(0.5)"

    async def conflict() -> None:
        await note(cluster, 1)
        await cluster.caught_up()
        await cluster.pause_replay(replica)
        await cluster.primary.execute("DELETE FROM note")
        await cluster.primary.execute("VACUUM note")
        await received(cluster, "replica-1")

    await conflict()
    async with replica.connect() as connection:
        with pytest.raises(asyncpg.SerializationError, match="conflict with recovery"):
            await connection.execute(resume)
    await conflict()
    await replica.execute(resume)
    await cluster.caught_up()
    assert await notes(replica) == []


async def test_apply_delay_lags_by_time(cluster: Cluster) -> None:
    """A delayed replica has the WAL and does not show it; ``caught_up`` names it; without the delay it shows it."""
    await cluster.set_apply_delay("replica-2", 60)
    await note(cluster, 1)
    await received(cluster, "replica-2")
    with pytest.raises(TimeoutError, match=r"replica-2 has not caught up within 0.2 s: \d+ bytes to replay"):
        await cluster.caught_up(timeout=0.2)
    assert await notes(cluster["replica-2"]) == []
    await cluster.set_apply_delay("replica-2", 0)
    await cluster.caught_up()
    assert await notes(cluster["replica-2"]) == [1]


async def test_caught_up_covers_what_no_commit_has_flushed(cluster: Cluster) -> None:
    """An asynchronous commit counts, too, although it is not yet flushed when ``caught_up`` is called."""
    await cluster.primary.execute("SET synchronous_commit = off; INSERT INTO note VALUES (1)")
    await cluster.caught_up()
    assert [await notes(node) for node in cluster.replicas] == [[1], [1]]


@pytest.mark.parametrize("name", ["primary", "replica-1"])
async def test_killed_node_comes_back_with_its_data(cluster: Cluster, name: str) -> None:
    """``kill`` is a crash: nobody answers; ``start`` brings the node back under its URL with all it had."""
    await note(cluster, 1)
    await cluster.caught_up()
    node, url = cluster[name], cluster[name].url
    await cluster.kill(name)
    assert not node.running
    with pytest.raises(ConnectionRefusedError):
        await node.fetchval("SELECT 1")
    await cluster.start(name)
    assert (node.running, node.url) == (True, url)
    assert await notes(node) == [1]
    await note(cluster, 2)
    await wait_until(lambda: notes_are(cluster["replica-2"], [1, 2]), what="replica-2 streams again")


async def notes_are(node: Node, expected: list[int]) -> bool:
    return await notes(node) == expected


async def test_stop_start_restart_keep_the_url(cluster: Cluster) -> None:
    """A stopped node is gone, and what it missed meanwhile arrives when it is back; stopping twice is fine."""
    node, urls = cluster["replica-1"], (cluster["replica-1"].url, cluster["replica-1"].direct_url)
    await cluster.stop("replica-1")
    await cluster.stop("replica-1")
    await note(cluster, 1)
    await cluster.caught_up()
    await cluster.start("replica-1")
    await cluster.restart(node)
    await cluster.caught_up()
    assert await notes(node) == [1]
    assert (node.url, node.direct_url) == urls


async def test_partition_stops_replication_only(cluster: Cluster) -> None:
    """A partitioned replica answers clients and receives nothing, until the partition heals."""
    await cluster.partition("replica-1")
    await note(cluster, 1)
    await cluster.caught_up()
    connection = await asyncpg.connect(cluster["replica-1"].url.replace("+asyncpg", ""))
    assert await connection.fetchval("SELECT count(*) FROM note") == 0
    await connection.close()
    assert await notes(cluster["replica-2"]) == [1]
    await cluster.heal("replica-1")
    await cluster.caught_up()
    assert await notes(cluster["replica-1"]) == [1]


@pytest.mark.parametrize("fault", ["cut", "black_hole"])
async def test_clients_are_cut_off_and_replication_is_not(cluster: Cluster, fault: str) -> None:
    """A node out of its clients' reach goes on replicating, and is reached again when everything is healed."""
    node = cluster["replica-1"]
    await getattr(cluster, fault)(node)
    assert not node.proxy.passing
    with pytest.raises((TimeoutError, ConnectionRefusedError)):
        await asyncpg.connect(node.url.replace("+asyncpg", ""), timeout=0.1)
    await note(cluster, 1)
    await cluster.caught_up()
    assert await notes(node) == [1]
    await cluster.heal()
    await (await asyncpg.connect(node.url.replace("+asyncpg", ""))).close()


async def test_a_promotion_that_does_not_happen_is_an_error(cluster: Cluster) -> None:
    """The error says so in time, and the roles stay as they were."""
    startup = await cluster["replica-1"].fetchval("SELECT pid FROM pg_stat_activity WHERE backend_type = 'startup'")
    os.kill(startup, signal.SIGSTOP)
    try:
        with pytest.raises(ClusterError, match=r"replica-1 was not promoted within 1 s\."):
            await cluster.promote("replica-1", timeout=1)
        assert cluster.primary is cluster["primary"]
    finally:
        # A crash forgets the request: the file that carries it is removed at the next start.
        await cluster.kill("replica-1")
        await cluster.start("replica-1")
    assert await cluster["replica-1"].fetchval("SELECT pg_is_in_recovery()") is True


async def test_terminated_backends_are_gone(cluster: Cluster) -> None:
    """Every client session ends with an error, and the number says how many there were."""
    connections = [await asyncpg.connect(cluster["replica-1"].url.replace("+asyncpg", "")) for _ in range(3)]
    assert await cluster.terminate_backends("replica-1") == 3
    for connection in connections:
        with pytest.raises((asyncpg.InterfaceError, asyncpg.PostgresError, OSError)):
            await connection.fetchval("SELECT 1")


@pytest.mark.parametrize("major", MAJORS)
async def test_promotion_follow_and_rejoin(postgres: Callable[[int], Binaries], major: int) -> None:
    """A promoted replica is the primary, the others can follow it, and the old primary rejoins without its fork."""
    async with Cluster(replicas=2, binaries=postgres(major), settings={"max_connections": 40}) as cluster:
        assert cluster.version.startswith(f"{major}.")
        old, new, other = cluster.nodes.values()
        await old.execute("CREATE TABLE note (id int PRIMARY KEY)")
        await cluster.caught_up()
        await cluster.partition(other)
        await cluster.promote(new)
        assert cluster.primary is new
        assert cluster.replicas == (old, other)
        assert await new.fetchval("SELECT pg_is_in_recovery()") is False

        await old.execute("INSERT INTO note VALUES (100)")  # the fork: nobody else may ever see it
        await note(cluster, 1)
        await cluster.caught_up()
        assert await notes(other) == []

        await cluster.follow(other)  # cut off still, so this waits for nothing
        await cluster.heal(other)
        await cluster.set_apply_delay(other, 0)
        await wait_until(lambda: notes_are(other, [1]), what="replica-2 follows replica-1")

        await cluster.rejoin(old)
        await note(cluster, 2)
        await cluster.caught_up()
        assert [await notes(node) for node in (old, new, other)] == [[1, 2]] * 3
        assert await old.fetchval("SELECT pg_is_in_recovery()") is True
        assert await old.fetchval("SHOW max_connections") == "40"

        await cluster.promote(old)
        await cluster.follow(other, of=old)
        await note(cluster, 3)
        await cluster.caught_up()
        assert await notes(other) == [1, 2, 3]


@pytest.mark.parametrize("there", [False, True])
async def test_rejoin_clones_where_it_cannot_rewind(
    postgres: Callable[[int], Binaries], monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    """Without pg_rewind, or when it fails, a node rejoins all the same, and keeps settings of its own."""
    program = Binaries.program
    async with Cluster(replicas=1, binaries=postgres(18)) as cluster:
        monkeypatch.setattr(Binaries, "has", lambda self, name: there)
        monkeypatch.setattr(
            Binaries, "program", lambda self, name: "false" if name == "pg_rewind" else program(self, name)
        )
        await cluster.set_apply_delay("replica-1", 0.25)
        await cluster.promote("replica-1")
        await cluster.rejoin("primary")
        assert await cluster["primary"].fetchval("SHOW recovery_min_apply_delay") == "0"
        assert await cluster["primary"].fetchval("SELECT pg_is_in_recovery()") is True


async def test_zero_replicas_and_own_settings() -> None:
    """A lone primary is a cluster, and settings reach PostgreSQL, booleans and quotes included."""
    settings: dict[str, str | float] = {"max_connections": 33, "jit": False, "application_name": "it's"}
    async with Cluster(replicas=0, settings=settings) as cluster:
        await cluster.caught_up()
        assert cluster.replicas == ()
        rows = await cluster.primary.fetch(
            "SELECT name, reset_val FROM pg_settings WHERE name IN ('max_connections', 'jit') ORDER BY name"
        )
        assert [(row["name"], row["reset_val"]) for row in rows] == [("jit", "off"), ("max_connections", "33")]


async def test_a_server_that_does_not_start_shows_its_log(spool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error has what PostgreSQL said, and nothing is left."""
    monkeypatch.setattr("tempfile.tempdir", str(spool))
    with pytest.raises(ClusterError, match=r'(?s)primary ended with exit status 1.*"no_such_setting"'):
        async with Cluster(replicas=1, settings={"no_such_setting": 1}):
            pass
    assert list(spool.iterdir()) == []


def test_a_cluster_has_no_negative_number_of_replicas() -> None:
    """Nonsense is refused before anything is started."""
    with pytest.raises(ValueError, match="replicas=-1"):
        Cluster(replicas=-1)


async def test_cancelled_opening_leaves_nothing(spool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cluster given up while it starts ends what it had started, and deletes it."""
    monkeypatch.setattr("tempfile.tempdir", str(spool))

    async def use() -> None:
        async with Cluster(replicas=1):
            raise AssertionError

    task = asyncio.create_task(use())
    await wait_until(lambda: list(spool.glob("*/primary/postmaster.pid")), what="the primary is starting")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert list(spool.iterdir()) == []


async def test_a_process_that_is_killed_leaves_nothing(spool: Path) -> None:
    """Even after SIGKILL of the process that had the cluster, its servers end and its files go."""
    script = """
        import asyncio
        from lagwise.testing import Cluster

        async def main():
            async with Cluster(replicas=1):
                print("up", flush=True)
                await asyncio.Event().wait()

        asyncio.run(main())
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)],
        stdout=subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(spool)},
    ) as process:
        assert process.stdout is not None
        assert await asyncio.to_thread(process.stdout.readline) == b"up\n"
        pids = [int(path.read_text().split()[0]) for path in spool.glob("*/*/postmaster.pid")]
        assert len(pids) == 2
        process.send_signal(signal.SIGKILL)
    await wait_until(lambda: not any(map(alive, pids)), what="the servers have ended")
    await wait_until(lambda: not list(spool.iterdir()), what="the files are gone")
