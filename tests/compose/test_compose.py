"""What compose.replica.yaml promises, each promise against containers that run exactly that file."""

from __future__ import annotations

import json
from functools import partial

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from lagwise import Causality, Router
from lagwise.testing import wait_until

from .stack import NODES, PASSWORDS, REPLICAS, Stack, docker, why_not

pytestmark = [pytest.mark.compose, pytest.mark.timeout(300)]

STREAMING = {"replica-1": "replica_1", "replica-2": "replica_2"}


async def keep(stack: Stack, word: str) -> None:
    """Write ``word`` on the primary, as the application would."""
    async with stack.connect("primary") as connection:
        await connection.execute(text("create table if not exists words (word text primary key)"))
        await connection.execute(text("insert into words values (:word)"), {"word": word})


async def has(stack: Stack, node: str, word: str) -> bool:
    """Whether ``node`` shows ``word``."""
    async with stack.connect(node) as connection:
        if not await connection.scalar(text("select to_regclass('words') is not null")):
            return False
        shown = text("select exists (select from words where word = :word)")
        return bool(await connection.scalar(shown, {"word": word}))


async def arrives(stack: Stack, word: str, *nodes: str) -> None:
    """Return when every one of ``nodes`` shows ``word``."""
    for node in nodes:
        await wait_until(partial(has, stack, node, word), what=f"{node} shows {word!r}", timeout=30)


async def streams(stack: Stack) -> None:
    """Return when both replicas stream, each over its slot."""

    async def both() -> bool:
        return await stack.streaming() == STREAMING

    await wait_until(both, what="both replicas stream over their slots", timeout=30, interval=0.2)


async def refusal(stack: Stack, node: str, user: str, password: str) -> str:
    """The SQLSTATE with which a connection is refused, or an empty word."""
    try:
        async with stack.connect(node, user, password):
            return ""
    except Exception as refused:  # what SQLAlchemy 2.0 and 2.1 make of it differs
        return str(getattr(getattr(refused, "orig", None) or refused, "sqlstate", repr(refused)))


async def test_both_replicas_stream_over_their_slots(stack: Stack) -> None:
    """Up and healthy means: two replicas in recovery, each streaming over a physical slot of its own."""
    assert await stack.streaming() == STREAMING
    assert [await stack.psql(node, "select pg_is_in_recovery()") for node in NODES] == ["f", "t", "t"]


async def test_a_row_written_on_the_primary_appears_on_both(stack: Stack) -> None:
    """The application's role creates a table and writes, and both replicas show the row."""
    await keep(stack, "appears")
    await arrives(stack, "appears", *REPLICAS)


@pytest.mark.parametrize("node", REPLICAS)
async def test_a_replica_refuses_a_write(stack: Stack, node: str) -> None:
    """What lagwise relies on: a replica answers a write with read_only_sql_transaction."""
    await keep(stack, f"before {node}")
    await arrives(stack, f"before {node}", node)
    async with stack.connect(node) as connection:
        with pytest.raises(DBAPIError) as refused:
            await connection.execute(text("insert into words values ('refused')"))
    assert getattr(refused.value.orig, "sqlstate", "") == "25006"


async def test_lagwise_reads_from_its_replicas(stack: Stack) -> None:
    """The application's role is enough for lagwise: it writes to the primary, and reads its write on a replica."""
    await keep(stack, "before routing")
    db = Router(stack.url("primary"), replicas={node: stack.url(node) for node in REPLICAS})
    show = text("select pg_is_in_recovery() from words where word = 'routed'")

    async def on_a_replica() -> bool:
        async with db.read() as session:
            recovering = await session.scalar(show)
        assert recovering is not None  # the write is missed nowhere
        return bool(recovering)

    async with db:
        with Causality(None):
            async with db.write.begin() as session:
                await session.execute(text("insert into words values ('routed')"))
            await wait_until(on_a_replica, what="a replica serves the read")


async def test_the_application_may_look_and_not_administer(stack: Stack) -> None:
    """The application's role reads pg_stat_wal_receiver, as the probe must, and is no superuser."""
    async with stack.connect("replica-1") as connection:
        assert await connection.scalar(text("select status from pg_stat_wal_receiver")) == "streaming"
    powers = "select rolname, rolsuper, rolreplication from pg_roles where rolcanlogin order by 1"
    assert (await stack.psql("primary", powers)).splitlines() == ["app|f|f", "postgres|t|t", "replicator|f|t"]


@pytest.mark.parametrize("node", NODES)
async def test_wrong_passwords_are_refused(stack: Stack, node: str) -> None:
    """On every node every role needs its own password, and another role's does not do."""
    assert [await refusal(stack, node, user, PASSWORDS[user]) for user in PASSWORDS] == ["", "", ""]
    assert [await refusal(stack, node, user, "wrong") for user in PASSWORDS] == ["28P01"] * 3
    assert await refusal(stack, node, "postgres", PASSWORDS["app"]) == "28P01"


async def test_passwords_are_scram_and_nothing_is_trusted(stack: Stack) -> None:
    """Over the network there is SCRAM and nothing else; replication is for its role alone."""
    rules = "select type, database, user_name, auth_method from pg_hba_file_rules order by line_number"
    expected = [
        "local|{all}|{postgres}|peer",
        "host|{all}|{all}|scram-sha-256",
        "host|{replication}|{replicator}|scram-sha-256",
    ]
    for node in NODES:
        assert (await stack.psql(node, rules)).splitlines() == expected
    stored = "select count(*) from pg_authid where rolcanlogin and rolpassword like 'SCRAM-SHA-256$%'"
    assert await stack.psql("primary", stored) == "3"
    replicate = (
        "PGPASSWORD={} psql -Xqw -d 'host=primary user={} dbname=app replication=true' -c IDENTIFY_SYSTEM 2>&1 || true"
    )
    said = await stack.sh("replica-1", replicate.format(PASSWORDS["app"], "app"))
    assert "no pg_hba.conf entry for replication" in said
    said = await stack.sh("replica-1", replicate.format("wrong", "replicator"))
    assert "password authentication failed" in said


async def test_ports_are_bound_to_loopback_only(stack: Stack) -> None:
    """Nobody but this machine reaches the databases, at the ports that were asked for."""
    published = {
        service: {(port.URL, port.PublishedPort) for port in container.Publishers if port.PublishedPort}
        for service, container in (await stack.containers()).items()
    }
    assert published == {node: {("127.0.0.1", stack.ports[node])} for node in NODES}


async def test_all_data_is_in_named_volumes(stack: Stack) -> None:
    """One named volume per node holds its data directory; no anonymous volume is left behind."""
    for node in NODES:
        container = await stack.container_of(node)
        mounts = json.loads(docker("inspect", "--format", "{{json .Mounts}}", container))
        named = [(mount["Name"], mount["Destination"]) for mount in mounts if mount["Type"] == "volume"]
        assert named == [(f"{stack.project}_{node}", "/var/lib/postgresql")]
        assert (await stack.psql(node, "show data_directory")).startswith("/var/lib/postgresql/")


async def test_a_dead_replica_cannot_fill_the_disk(stack: Stack) -> None:
    """WAL is kept for a replica that is away, up to a limit."""
    limit = "select setting::int > 0 from pg_settings where name = 'max_slot_wal_keep_size'"
    assert await stack.psql("primary", limit) == "t"


async def test_a_second_up_changes_nothing(stack: Stack) -> None:
    """`up` again neither restarts nor clones, and streaming goes on."""
    before = [await stack.identity(node) for node in NODES]
    running = [await stack.container_of(node) for node in NODES]
    await stack.up()
    assert [await stack.identity(node) for node in NODES] == before
    assert [await stack.container_of(node) for node in NODES] == running
    assert await stack.streaming() == STREAMING


async def test_a_restart_does_not_clone(stack: Stack) -> None:
    """`restart` comes back with the same data, and streams."""
    before = [await stack.identity(node) for node in NODES]
    await stack.compose("restart")
    await streams(stack)
    assert [await stack.identity(node) for node in NODES] == before


async def test_down_and_up_keep_the_rows(stack: Stack) -> None:
    """`down` without -v keeps the volumes: the next `up` has the rows, without a clone, and streams."""
    await keep(stack, "kept")
    before = [await stack.identity(node) for node in NODES]
    await stack.compose("down")
    await stack.up()
    assert await has(stack, "primary", "kept")
    await arrives(stack, "kept", *REPLICAS)
    assert await stack.streaming() == STREAMING
    assert [await stack.identity(node) for node in NODES] == before


async def test_a_replica_killed_outright_comes_back(stack: Stack) -> None:
    """After kill -9 a replica recovers from its own data."""
    before = await stack.identity("replica-2")
    await stack.compose("kill", "--signal", "KILL", "replica-2")
    await keep(stack, "written while it was dead")
    await stack.up()
    await arrives(stack, "written while it was dead", *REPLICAS)
    assert await stack.identity("replica-2") == before


async def test_an_interrupted_clone_is_done_again(stack: Stack) -> None:
    """A replica whose base backup was killed half-way clones again, and is whole."""
    await keep(stack, "before the clone")
    await stack.compose("rm", "--stop", "--force", "replica-2")
    left = await stack.once(
        "replica-2",
        """
        cd /var/lib/postgresql/$PG_MAJOR && rm -rf main
        export PGPASSWORD=$REPLICATION_PASSWORD
        pg_basebackup --max-rate=4M -X none -c fast -d 'host=primary user=replicator' -D clone &
        until compgen -G 'clone/base/*/*' >/dev/null; do kill -0 $!; done
        kill -KILL $!
        find clone
        """,
    )
    assert "clone/base/" in left
    assert "pg_control" not in left  # it comes last
    await stack.up()
    await streams(stack)
    await arrives(stack, "before the clone", "replica-2")
    assert await stack.sh("replica-2", "ls /var/lib/postgresql/$PG_MAJOR") == "main"


async def test_a_replica_starts_and_serves_without_its_primary(stack: Stack) -> None:
    """Only a clone needs the primary: a replica that has data serves it while the primary is down."""
    await keep(stack, "served alone")
    await arrives(stack, "served alone", "replica-1")
    await stack.compose("stop", "primary")
    try:
        await stack.compose("restart", "replica-1")

        async def serves() -> bool:
            if await refusal(stack, "replica-1", "app", PASSWORDS["app"]):
                return False
            return await has(stack, "replica-1", "served alone")

        await wait_until(serves, what="replica-1 serves alone", timeout=30, interval=0.2)
    finally:
        # Not `up`: it gives up at once on the other replica, which had nobody to stream from and says so.
        await stack.compose("start", "primary")
    await streams(stack)
    await wait_until(stack.healthy, what="all of it is healthy", timeout=30, interval=0.2)


async def test_a_replica_given_up_is_cloned_again(stack: Stack) -> None:
    """A replica that was away for more WAL than its slot keeps heals itself when it is started again."""
    before = {node: await stack.identity(node) for node in REPLICAS}
    await stack.up(MAX_SLOT_WAL_KEEP_SIZE="16MB")
    await stack.compose("stop", "replica-2")

    async def lost() -> bool:
        # A message, so that there is something in every segment that is switched away from.
        message = "select pg_logical_emit_message(false, 'lagwise', 'x'), pg_switch_wal();"
        await stack.psql("primary", message + "\ncheckpoint")
        status = "select wal_status from pg_replication_slots where slot_name = 'replica_2'"
        return await stack.psql("primary", status) == "lost"

    await wait_until(lost, what="the slot is given up", timeout=60)
    await stack.compose("start", "replica-2")
    await streams(stack)
    assert await stack.identity("replica-1") == before["replica-1"]
    assert await stack.identity("replica-2") != before["replica-2"]
    await stack.up()


async def test_apply_delay_makes_the_second_replica_lag(stack: Stack) -> None:
    """APPLY_DELAY keeps a row from replica-2 that it has already received; it stays healthy."""
    await stack.up(APPLY_DELAY="1h")
    await keep(stack, "delayed")
    await arrives(stack, "delayed", "replica-1")
    received = "select pg_last_wal_receive_lsn() >= '{}'"
    position = await stack.psql("primary", "select pg_current_wal_flush_lsn()")

    async def has_received() -> bool:
        return await stack.psql("replica-2", received.format(position)) == "t"

    await wait_until(has_received, what="replica-2 has received the row", interval=0.1)
    assert not await has(stack, "replica-2", "delayed")
    await stack.up()
    await arrives(stack, "delayed", "replica-2")


async def test_a_promoted_replica_stays_a_primary(fresh: Stack) -> None:
    """After pg_promote() the replica takes writes, is healthy, and is not cloned back by a restart."""
    await fresh.up("replica-1")
    await keep(fresh, "before promotion")
    await arrives(fresh, "before promotion", "replica-1")
    before = await fresh.identity("replica-1")
    await fresh.compose("stop", "primary")
    assert await fresh.psql("replica-1", "select pg_promote()") == "t"
    await fresh.compose("restart", "replica-1")
    await fresh.up("--no-deps", "replica-1")
    counted = "insert into words values ('after promotion');\nselect count(*) from words"
    assert await fresh.psql("replica-1", counted) == "2"
    assert await fresh.identity("replica-1") == before


async def test_a_first_start_cut_short_is_begun_again(fresh: Stack) -> None:
    """A cluster whose roles were never made is not taken for a finished one."""
    await fresh.once("primary", "initdb -D /var/lib/postgresql/$PG_MAJOR/main >/dev/null")
    await fresh.up("primary")
    async with fresh.connect("primary") as connection:
        assert await connection.scalar(text("select current_user")) == "app"


async def test_a_wrong_replication_password_is_said_at_once(fresh: Stack) -> None:
    """A replica that is not let in ends with the server's reason in its log; it does not try for ever."""
    await fresh.up("primary")
    with pytest.raises(AssertionError, match="exited"):
        await fresh.up("--no-deps", "replica-1", REPLICATION_PASSWORD="wrong")
    logs = await fresh.compose("logs", "--no-color", "replica-1")
    assert 'password authentication failed for user "replicator"' in logs


async def test_the_example_application_is_a_profile() -> None:
    """`config` accepts the profile `app`: it knows all three nodes and mounts the checkout read-only."""
    if reason := why_not():
        pytest.skip(reason)
    stack = Stack("lagwise-test-config")
    whole = json.loads(await stack.compose("--profile", "app", "config", "--format", "json"))
    app = whole["services"]["app"]
    assert app["environment"]["LAGWISE_PRIMARY"] == "postgresql+asyncpg://app:test-app@primary:5432/app"
    assert app["environment"]["LAGWISE_REPLICAS"].split(",") == [
        f"postgresql+asyncpg://app:test-app@{node}:5432/app" for node in REPLICAS
    ]
    assert [(mount["target"], mount["read_only"]) for mount in app["volumes"]] == [("/src", True)]
    assert app["ports"][0]["host_ip"] == "127.0.0.1"
    assert set(app["depends_on"]) == set(NODES)
    plain = json.loads(await stack.compose("config", "--format", "json"))
    assert set(plain["services"]) == set(NODES)
