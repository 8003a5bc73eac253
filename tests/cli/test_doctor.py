"""`lagwise doctor` before real servers: eight that are set up wrongly, and one cluster that is well."""

import asyncio
import itertools
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import typer
from sqlalchemy import make_url
from typer.testing import CliRunner

from lagwise.cli import app
from lagwise.cli.doctor.verdict import Topic
from lagwise.testing import Cluster, Node, Proxy, wait_until
from lagwise.testing.backend import Address
from lagwise.testing.replication import add_slot
from tests.docs.pages import ROOT, blocks, table
from tests.kit.bouncer import bouncer

PLANTED = "planted_secret"
"""A password; roles have it, and things are named after it."""
PAGE = ROOT / "docs" / "doctor.md"
DOCTOR = (sys.executable, "-W", "error", "-m", "lagwise", "doctor")


def changed(node: Node, **parts: Any) -> str:
    """The node's URL with other parts."""
    return make_url(node.url).set(**parts).render_as_string(hide_password=False)


@dataclass(frozen=True)
class Told:
    """What one run of the doctor has told."""

    status: int
    found: dict[str, Any]

    @property
    def faults(self) -> list[tuple[str, str]]:
        """Topic and subject of each fault."""
        return [(one["topic"], one["subject"]) for one in self.verdicts("fault")]

    def verdicts(self, level: str) -> list[dict[str, str]]:
        """Those of one level."""
        return [one for one in self.found["verdicts"] if one["level"] == level]

    def of(self, topic: str, subject: str) -> dict[str, str]:
        """The worst verdict on this."""
        return next(one for one in self.found["verdicts"] if (one["topic"], one["subject"]) == (topic, subject))

    def node(self, name: str) -> dict[str, Any]:
        """What is known of a node."""
        return next(one for one in self.found["nodes"] if one["name"] == name)


async def run(*arguments: str) -> tuple[int, str]:
    """The status and the whole output; the proxies before the servers live in the loop of this thread."""
    result = await asyncio.to_thread(CliRunner().invoke, app, ["doctor", *arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


async def told(*urls: str, options: Sequence[str] = ()) -> Told:
    """What the doctor says in JSON, in which there is nothing of the URLs but the names."""
    status, output = await run(*options, "--json", *urls)
    for url in urls:
        parts = make_url(url.split("=", 1)[1] if re.match(r"[\w-]+=", url) else url)
        for secret in (parts.password, parts.host, PLANTED):
            assert secret is None or str(secret) not in output
    told = Told(status, json.loads(output))
    assert told.found["healthy"] is (status == 0)
    return told


def shown(text: str) -> str:
    """Text as it is compared with the page: in one line, and without its numbers."""
    return re.sub(r"[\d.]*\d", "N", " ".join(text.split())).replace("doctor_app", "app")


def on_the_page(told: Told, topic: str) -> None:
    """The page has what was told of the faults of this topic, with their remedies."""
    page = " ".join(shown(block.code) for block in blocks(PAGE) if block.language == "text")
    for fault in [fault for fault in told.verdicts("fault") if fault["topic"] == topic]:
        assert shown(f"{fault['what']} -> {fault['remedy']}") in page


def urls(cluster: Cluster) -> list[str]:
    return [node.url for node in cluster.nodes.values()]


@asynccontextmanager
async def role(cluster: Cluster, name: str, options: str = "") -> AsyncIterator[str]:
    """A role of this name that may log in, on all nodes."""
    await cluster.primary.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{PLANTED}' {options}")
    await cluster.caught_up()
    try:
        yield name
    finally:
        await cluster.primary.execute(f"DROP OWNED BY {name}; DROP ROLE {name}")
        await cluster.caught_up()


async def test_a_healthy_cluster_is_healthy(cluster: Cluster) -> None:
    """Exit status 0, no fault, and every node with its role, version, lag and round trip."""
    found = await told(*urls(cluster))
    assert (found.status, found.faults) == (0, [])
    assert [one["role"] for one in found.found["nodes"]] == ["primary", "replica", "replica"]
    assert {one["version"] for one in found.found["nodes"]} == {cluster.version.split()[0]}
    for node in found.found["nodes"]:
        assert node["reachable"]
        assert 0 < node["round_trip"] < 5
        assert abs(node["clock_difference"]) < 1
    assert found.node("primary")["lag_bytes"] is None
    assert all(found.of("lag", name)["level"] == "ok" for name in ("replica-1", "replica-2"))
    assert found.of("streaming", "replica-1")["what"] == "It streams."
    # Every kind of fault would be seen: each topic but that of an extension was looked at.
    topics = {one["topic"] for one in found.found["verdicts"]}
    assert {"address", "slots", "pools", "privileges", "pooler", "clock", "timeline", "unlogged-tables"} <= topics


async def test_roles_that_are_swapped(cluster: Cluster) -> None:
    """The URL of a replica as the primary's: both are named, and what to swap."""
    primary, replica, other = urls(cluster)
    found = await told(f"first={replica}", f"second={primary}", f"third={other}")
    assert (found.status, found.faults) == (1, [("role", "first"), ("role", "second")])
    assert found.of("role", "first")["remedy"].startswith("Swap the URLs of first and second.")
    on_the_page(found, "role")


async def test_connections_that_cannot_be_had(cluster: Cluster) -> None:
    """A wrong password, no such database, a full role, refusal, silence and no TLS are told apart, at the same time."""
    primary, one, two = cluster.nodes.values()
    async with (
        role(cluster, "doctor_full", "CONNECTION LIMIT 0") as full,
        Proxy(one.server.address) as refusing,
        Proxy(two.server.address) as silent,
    ):
        refusing.refuse()
        silent.black_hole()
        nodes = {
            "password": changed(one, password=PLANTED),
            "database": changed(one, database=f"{PLANTED}_shop"),
            "full": changed(one, username=full, password=PLANTED),
            "refused": changed(one, host=refusing.address.host, port=refusing.address.port),
            "silent": changed(two, host=silent.address.host, port=silent.address.port),
            "tls": changed(one, query={"ssl": "require"}),
        }
        pairs = [f"{name}={url}" for name, url in nodes.items()]
        found = await told(primary.url, *pairs, options=["--timeout", "3"])
    assert (found.status, found.faults) == (1, [("reachable", name) for name in nodes])
    assert [found.node(name)["cause"] for name in nodes] == [
        "wrong-password", "no-such-database", "too-many-connections", "refused", "silent", "tls-failed",
    ]  # fmt: skip
    on_the_page(found, "reachable")


async def test_a_replica_of_another_cluster(cluster: Cluster, elsewhere: Cluster) -> None:
    """Its system identifier gives it away; nothing else is said of a stranger."""
    found = await told(cluster.primary.url, cluster.replicas[0].url, elsewhere.replicas[0].url)
    assert (found.status, found.faults) == (1, [("system", "replica-2")])
    on_the_page(found, "system")


async def test_a_pin_of_another_cluster(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every session would be refused, so it is a fault, from the environment and from the command line."""
    monkeypatch.setenv("LAGWISE_SYSTEM", "42")
    found = await told(*urls(cluster))
    assert (found.status, found.faults) == (1, [("system", "cluster")])
    on_the_page(found, "system")
    right = str(found.node("primary")["system"])
    assert (await told(*urls(cluster), options=["--system", right])).status == 0
    monkeypatch.setenv("LAGWISE_SYSTEM", right)
    assert (await told(*urls(cluster), options=["--system", "42"])).faults == [("system", "cluster")]
    assert (await run("--system", "main", *urls(cluster)))[0] == 2


async def test_a_receiver_that_is_dead(cluster: Cluster) -> None:
    """A replica that its primary does not reach: it does not stream, and lags by what was written since."""
    await cluster.partition("replica-1")
    await wait_until(
        lambda: cluster["replica-1"].fetchval(
            "SELECT count(*) = 0 FROM pg_stat_wal_receiver WHERE status = 'streaming'"
        ),
        what="the receiver is dead",
    )
    await cluster.primary.execute("INSERT INTO item (name) VALUES ('not received')")
    found = await told(*urls(cluster))
    assert (found.status, found.faults[0]) == (1, ("streaming", "replica-1"))
    assert found.of("lag", "replica-1")["level"] in {"warning", "fault"}  # as long as the last commit is ago
    assert found.node("replica-1")["lag_bytes"] > 0
    assert found.of("slots", "primary")["what"].startswith("Slot replica_1 is used by nothing.")
    on_the_page(found, "streaming")


async def test_replay_that_is_paused(cluster: Cluster) -> None:
    """It streams and shows nothing new: a fault, with the function that ends it."""
    await cluster.pause_replay("replica-1")
    await cluster.set_apply_delay("replica-2", 0.3)
    found = await told(*urls(cluster))
    assert (found.status, found.faults) == (1, [("streaming", "replica-1")])
    assert "pg_wal_replay_resume()" in found.of("streaming", "replica-1")["remedy"]
    assert found.of("streaming", "replica-2")["what"].startswith("recovery_min_apply_delay")


async def test_too_few_connections(cluster: Cluster) -> None:
    """More workers than `max_connections` has room for, and a role's own limit: a number that fits is suggested."""
    found = await told(*urls(cluster), options=["--workers", "20"])
    assert (found.status, found.faults) == (1, [("pools", name) for name in ("primary", "replica-1", "replica-2")])
    fits = re.match(r"pool_size=(\d+) fits", found.of("pools", "primary")["remedy"])
    assert fits is not None
    on_the_page(found, "pools")
    mended = await told(*urls(cluster), options=["--workers", "20", "--pool-size", fits[1]])
    assert mended.status == 0
    async with role(cluster, "doctor_limited", "CONNECTION LIMIT 30") as limited:
        await cluster.primary.execute(f"GRANT pg_monitor TO {limited}")
        await cluster.caught_up()
        found = await told(*(changed(node, username=limited, password=PLANTED) for node in cluster.nodes.values()))
    assert found.faults == [("pools", "primary")]
    assert [one["subject"] for one in found.verdicts("warning") if one["topic"] == "pools"] == [
        "replica-1",
        "replica-2",
    ]


async def test_a_pooler_in_transaction_mode(cluster: Cluster) -> None:
    """It is found on each node; to an application that says `pooling="transaction"` it is in order."""
    async with bouncer(cluster) as bounced:
        found = await told(*bounced.urls.values())
        assert (found.status, found.faults) == (1, [("pooler", name) for name in cluster.nodes])
        on_the_page(found, "pooler")
        assert (await told(*bounced.urls.values(), options=["--pooling", "transaction"])).status == 0
    async with bouncer(cluster, mode="session") as bounced:
        found = await told(*bounced.urls.values())
        assert (found.status, found.of("pooler", "primary")["what"]) == (
            0,
            "A pooler in session mode stands before it.",
        )


async def test_a_replica_on_an_old_timeline(doomed: Cluster) -> None:
    """It had more than the replica that was promoted, and cannot follow; and the old primary is a second one."""
    old, new, stuck = doomed.nodes.values()
    await doomed.partition(new)
    await old.execute("INSERT INTO item (name) VALUES ('beyond the fork')")
    await doomed.caught_up()
    await doomed.promote(new)
    await add_slot(new, stuck)
    stuck.attach(new)
    stuck.link.reset()
    await new.execute("INSERT INTO item (name) VALUES ('after it')")
    found = await told(new.url, stuck.url)
    assert found.status == 1
    assert ("timeline", "replica-1") in found.faults
    assert {fault for fault in found.faults if fault[0] != "timeline"} <= {("streaming", "replica-1")}
    on_the_page(found, "timeline")
    both = await told(new.url, f"old={old.url}")
    assert both.of("role", "cluster")["remedy"].startswith("Stop old; ")
    assert {("role", "old"), ("role", "cluster")} <= set(both.faults)


async def test_privileges_that_are_missing(cluster: Cluster) -> None:
    """The GRANT is told, and works; so is that of a function that was revoked, without which a node is not read."""
    primary = cluster.primary
    await primary.execute(f"CREATE UNLOGGED TABLE {PLANTED}_table (id int)")
    try:
        async with role(cluster, "doctor_app") as name:
            nodes = [changed(node, username=name, password=PLANTED) for node in cluster.nodes.values()]
            found = await told(*nodes)
            assert (found.status, found.faults) == (1, [("privileges", node) for node in cluster.nodes])
            assert found.of("unlogged-tables", "primary")["what"].endswith(": public...._table.")
            on_the_page(found, "privileges")
            remedy = found.of("privileges", "primary")["remedy"]
            assert remedy == "On the primary: GRANT pg_monitor TO doctor_app;"
            await primary.execute(remedy.removeprefix("On the primary: "))
            await cluster.caught_up()
            assert (await told(*nodes)).status == 0
            await primary.execute("REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC, pg_monitor")
            try:
                await cluster.caught_up()
                found = await told(*nodes)
            finally:
                await primary.execute("GRANT EXECUTE ON FUNCTION pg_control_system() TO PUBLIC")
            assert {("reachable", "primary"), ("privileges", "primary")} <= set(found.faults)
            grant = "GRANT EXECUTE ON FUNCTION pg_catalog.pg_control_system() TO doctor_app;"
            assert grant in found.of("privileges", "primary")["remedy"]
            await everything_revoked(cluster, nodes)
    finally:
        await primary.execute(f"DROP TABLE {PLANTED}_table")


MONITORS = (
    "FUNCTION pg_walfile_name(pg_lsn), pg_current_wal_insert_lsn(), pg_current_wal_flush_lsn(), pg_size_bytes(text)",
    "FUNCTION pg_last_wal_replay_lsn(), pg_postmaster_start_time(), pg_control_checkpoint(), pg_control_recovery()",
    "pg_stat_wal_receiver",
)


async def everything_revoked(cluster: Cluster, nodes: Sequence[str]) -> None:
    """What the monitor reads is revoked from everybody: each node's remedies, followed, make it healthy again."""
    primary = cluster.primary
    rights = ["SELECT ON" if " " not in one else "EXECUTE ON" for one in MONITORS]
    for right, one in zip(rights, MONITORS, strict=True):
        await primary.execute(f"REVOKE {right} {one} FROM PUBLIC, pg_monitor")
    try:
        await cluster.caught_up()
        found = await told(*nodes)
        assert {("privileges", name) for name in cluster.nodes} <= set(found.faults)
        for fault in found.verdicts("fault"):
            if (fault["topic"], fault["subject"]) == ("privileges", "primary"):
                await primary.execute(fault["remedy"].removeprefix("On the primary: "))
        await cluster.caught_up()
        assert (await told(*nodes)).status == 0
    finally:
        for right, one in zip(rights, MONITORS, strict=True):
            await primary.execute(f"GRANT {right} {one} TO PUBLIC")


async def test_urls_of_different_databases(cluster: Cluster) -> None:
    """A replica's URL that names another database of the same cluster is a fault, and no name is told."""
    await cluster.primary.execute(f"CREATE DATABASE {PLANTED}")
    try:
        await cluster.caught_up()
        primary, one, two = cluster.nodes.values()
        found = await told(primary.url, changed(one, database=PLANTED), two.url)
    finally:
        await cluster.primary.execute(f"DROP DATABASE {PLANTED}")
    assert (found.status, found.faults) == (1, [("database", "replica-1")])


@pytest.mark.parametrize("of", ["ROLE", "DATABASE"])
async def test_a_primary_on_which_every_write_fails(cluster: Cluster, of: str) -> None:
    """`default_transaction_read_only` of the role or of the database in the primary's URL."""
    async with role(cluster, "doctor_reads", "IN ROLE pg_monitor") as name:
        database = make_url(cluster.primary.url).database
        which = f"{of} {name if of == 'ROLE' else database}"
        await cluster.primary.execute(f"ALTER {which} SET default_transaction_read_only = on")
        try:
            await cluster.caught_up()
            found = await told(*(changed(node, username=name, password=PLANTED) for node in cluster.nodes.values()))
        finally:
            await cluster.primary.execute(
                f"BEGIN READ WRITE; ALTER {which} RESET default_transaction_read_only; COMMIT"
            )
    assert (found.status, found.faults) == (1, [("default-transaction-read-only", "primary")])
    assert found.of("default-transaction-read-only", "replica-1")["level"] == "note"


async def test_a_receiver_that_begins_again_and_again(doomed: Cluster) -> None:
    """Its slot is gone: it says "streaming" for a moment at each of its attempts, ten in a second."""
    replica = doomed.replicas[0]
    await replica.execute("ALTER SYSTEM SET wal_retrieve_retry_interval = '100ms'")
    await replica.execute("SELECT pg_reload_conf()")
    await doomed.partition(replica)
    await doomed.primary.execute(
        "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE active_pid IS NOT NULL"
    )
    await wait_until(partial(dropped, doomed), what="the slot to be free")
    await doomed.heal()
    for _ in range(3):
        found = await told(*urls(doomed))
        assert ("streaming", "replica-1") in found.faults


async def dropped(cluster: Cluster) -> bool:
    """Drop replica-1's slot, once its sender has ended."""
    gone = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = 'replica_1'"
    try:
        await cluster.primary.execute(gone)
    except Exception:  # in use still
        return False
    return True


class Balancer(Proxy):
    """A proxy before several servers, each new connection to the next of them."""

    def __init__(self, *targets: Address) -> None:
        self._turns = itertools.cycle(targets)
        super().__init__(targets[0])

    @property
    def target(self) -> Address:
        return next(self._turns)

    @target.setter
    def target(self, _: Address) -> None:
        """Its targets are those it was made with."""


async def test_one_address_before_several_servers(cluster: Cluster) -> None:
    """A load balancer before two replicas is found by what several connections say of their server."""
    one, two = cluster.replicas
    async with Balancer(one.server.address, two.server.address) as balancer:
        url = changed(one, host=balancer.address.host, port=balancer.address.port)
        found = await told(cluster.primary.url, url)
    assert (found.status, found.faults) == (1, [("address", "replica-1")])
    assert found.of("address", "primary")["level"] == "ok"


async def test_one_server_under_two_names_is_fine(cluster: Cluster) -> None:
    """As in development: a note, exit status 0."""
    found = await told(cluster.primary.url, cluster.primary.url)
    assert (found.status, found.of("role", "replica-1")["level"]) == (0, "note")


async def test_a_server_that_falls_silent_is_left_after_the_timeout(cluster: Cluster) -> None:
    """Between two answers the network swallows everything: told as silence, and no question waits for ever."""
    node = cluster.replicas[0]
    async with Proxy(node.server.address) as proxy:
        url = changed(node, host=proxy.address.host, port=proxy.address.port)
        asking = asyncio.create_task(told(cluster.primary.url, url, options=["--timeout", "1"]))
        await wait_until(lambda: proxy.by_application.get("lagwise doctor", 0) >= 4, what="it was asked something")
        proxy.black_hole()
        async with asyncio.timeout(30):
            found = await asking
    assert (found.status, found.faults) == (1, [("reachable", "replica-1")])
    assert found.node("replica-1")["cause"] == "silent"


_LEFT = "SELECT count(*) = 0 FROM pg_stat_activity WHERE application_name = 'lagwise doctor'"


async def test_nothing_of_it_is_left_on_the_servers(cluster: Cluster) -> None:
    """Its connections are closed, in order: the server has nothing to say of lost ones."""
    await told(*urls(cluster))
    for node in cluster.nodes.values():
        await wait_until(partial(node.fetchval, _LEFT), what=f"{node.name} is left alone")


_SMALL: dict[str, str | float] = {
    "max_connections": 30,
    "wal_level": "minimal",
    "max_wal_senders": 0,
    "synchronous_commit": "off",
}
_LOCKING = "SELECT 1 AS doctor FROM pg_class WHERE relname = 'nothing' FOR UPDATE"


async def test_a_small_server_that_replicates_nothing(cluster: Cluster) -> None:
    """Room for less than one process, a log without what replicas need; and SELECTs that write, counted alone."""
    available = "SELECT count(*) FROM pg_available_extensions WHERE name = 'pg_stat_statements'"
    extension = bool(await cluster.primary.fetchval(available))
    loaded = {"shared_preload_libraries": "pg_stat_statements"} if extension else {}
    async with Cluster(replicas=0, settings={**_SMALL, **loaded}) as small:
        if extension:
            await small.primary.execute("CREATE EXTENSION pg_stat_statements")
            await small.primary.execute(f"CREATE ROLE doctor_app PASSWORD '{PLANTED}'")
            await small.primary.execute("CREATE SEQUENCE drawn; SELECT nextval('drawn')")
            await small.primary.execute(_LOCKING)
        found = await told(small.primary.url)
        async with AsyncExitStack() as taken:
            for _ in range(20):
                await taken.enter_async_context(small.primary.connect())
            crowded = await told(small.primary.url)
    assert (found.status, set(found.faults)) == (1, {("wal-level", "primary"), ("pools", "primary")})
    assert (found.of("address", "primary")["level"], crowded.of("address", "primary")["level"]) == ("ok", "note")
    assert found.of("pools", "primary")["remedy"].startswith("pool_size=12 fits")
    assert found.of("synchronous-commit", "primary")["level"] == "warning"
    if extension:
        assert found.of("statements", "primary")["what"].endswith(
            ": 1 with FOR UPDATE or FOR SHARE, 1 with nextval or setval."
        )


@asynccontextmanager
async def process(*arguments: str, **env: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """The command in a process of its own."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("LAGWISE_")}
    process = await asyncio.create_subprocess_exec(
        *DOCTOR, *arguments, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE, env={**kept, **env},
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def test_the_command_reads_the_environment(cluster: Cluster) -> None:
    """As a process, for people: a line of progress on stderr, tables and a last line on stdout, no URL, status 0."""
    primary, one, two = urls(cluster)
    async with process(LAGWISE_PRIMARY=primary, LAGWISE_REPLICAS=f"east={one},{two}") as command:
        out, err = (part.decode() for part in await command.communicate())
        assert (command.returncode, err) == (0, "Asking primary, east, replica-2 ...\n"), out
    assert out.splitlines()[-1].startswith("Healthy: ")
    password = str(make_url(primary).password)
    assert password not in out
    assert "127.0.0.1" not in out


async def test_ctrl_c_ends_it(cluster: Cluster) -> None:
    """In the middle of a question: status 130, one line, no traceback."""
    node = cluster.replicas[0]
    async with Proxy(node.server.address) as proxy:
        proxy.black_hole()
        url = changed(node, host=proxy.address.host, port=proxy.address.port)
        async with process("--timeout", "600", cluster.primary.url, url) as command:
            assert command.stderr is not None
            await wait_until(lambda: proxy.open_connections > 0, timeout=60, what="it asks")
            command.send_signal(signal.SIGINT)
            out, err = (part.decode() for part in await command.communicate())
            said = "Asking primary, replica-1 ...\nStopped; nothing is left behind.\n"
            assert (command.returncode, out, err) == (130, "", said)


@pytest.mark.parametrize("arguments", [[], ["--workers", "0", "x"], [f"postgresql+psycopg://app:{PLANTED}@host/shop"]])
async def test_a_command_that_makes_no_sense_is_status_2(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """No node, a number out of range, a driver that lagwise cannot use."""
    monkeypatch.delenv("LAGWISE_PRIMARY", raising=False)
    status, output = await run(*arguments)
    assert (status, PLANTED in output) == (2, False)


async def test_the_json_is_as_documented(cluster: Cluster) -> None:
    """The example on the page has the names, in their order, and the kinds of values that the command writes."""
    (example,) = [json.loads(block.code) for block in blocks(PAGE) if block.language == "json"]
    found = await told(*urls(cluster)[:2], options=["--workers", "20"])
    worst = [found.of(one["topic"], one["subject"]) for one in example["verdicts"]]
    assert _shape(example) == _shape({**found.found, "verdicts": worst})


def _shape(value: Any) -> Any:
    if isinstance(value, dict):
        return [(key, _shape(one)) for key, one in value.items()]
    if isinstance(value, list):
        return [_shape(one) for one in value]
    return "text" if isinstance(value, str) else "number" if type(value) in {int, float} else value


def test_every_topic_is_on_the_page() -> None:
    """In the order of the code; what the table calls a fault may be one."""
    assert [row[0] for row in table(PAGE, "Topic")] == [topic.value for topic in Topic]


def test_every_option_is_on_the_page() -> None:
    """With its default."""
    command = typer.main.get_command(app)
    parameters = command.commands["doctor"].params  # type: ignore[attr-defined]
    page = {row[0]: row[1].replace("`", "") for row in table(PAGE, "Option")}
    assert page == {one.opts[0]: _default(one) for one in parameters if one.opts[0].startswith("--")}


def _default(option: Any) -> str:
    told = re.search(r"\[default: (.+)\]", option.help)  # of those that the environment may set
    return told[1] if told else "off" if option.default is False else str(option.default)
