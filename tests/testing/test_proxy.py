"""The proxy counts what a client waits for, breaks the network in each way it says, and leaves nothing behind."""

import asyncio
import socket
import struct
import time
from collections.abc import AsyncIterator

import asyncpg  # type: ignore[import-untyped]
import pytest

from lagwise.testing import Cluster, Proxy, wait_until
from lagwise.testing.backend import Address
from lagwise.testing.link import Framing

STARTUP = b"user\0app\0application_name\0probe\0\0"
STARTUP = struct.pack(">II", 8 + len(STARTUP), 196608) + STARTUP
SSL_REQUEST, GSS_REQUEST = struct.pack(">II", 8, 80877103), struct.pack(">II", 8, 80877104)
CANCEL = struct.pack(">IIII", 16, 80877102, 1, 2)


def message(kind: bytes, payload: bytes = b"") -> bytes:
    return kind + struct.pack(">I", 4 + len(payload)) + payload


ANSWERS = message(b"R", b"\0\0\0\0") + message(b"Z", b"I") + message(b"D", b"Z" * 300) + message(b"Z", b"T")


async def connect(proxy: Proxy, cluster: Cluster, **options: object) -> asyncpg.Connection:
    url = cluster.primary.url.replace("+asyncpg", "")
    password = url.split(":")[2].split("@")[0]
    return await asyncpg.connect(
        host=proxy.address.host, port=proxy.address.port, user="lagwise", password=password, database="app", **options
    )


@pytest.fixture
async def proxy(cluster: Cluster) -> AsyncIterator[Proxy]:
    """A proxy of its own before the primary."""
    async with Proxy(cluster.primary.server.address) as proxy:
        yield proxy


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 64, 10_000])
def test_ready_messages_are_counted_however_they_are_cut(size: int) -> None:
    """Messages split over reads, 'Z' bytes within rows, and the bare byte that answers SSLRequest do not confuse it."""
    framing = Framing()
    for part in (GSS_REQUEST, SSL_REQUEST, STARTUP):
        for at in range(0, len(part), size):
            framing.from_client(part[at : at + size])
    sent = b"NN" + ANSWERS * 3
    assert sum(framing.from_server(sent[at : at + size]) for at in range(0, len(sent), size)) == 6
    assert (framing.application, framing.opaque) == ("probe", False)


@pytest.mark.parametrize(
    ("request_", "answer"), [(SSL_REQUEST, b"S"), (GSS_REQUEST, b"G"), (CANCEL, b""), (b"\x16\x03\x01\0\0\0\0\0", b"")]
)
def test_what_cannot_be_read_is_not_counted(request_: bytes, answer: bytes) -> None:
    """TLS, GSS encryption and cancel requests pass uncounted."""
    framing = Framing()
    framing.from_client(request_)
    assert framing.from_server(answer + ANSWERS) == 0
    assert framing.opaque
    framing.from_client(STARTUP)
    assert framing.application == ""


def test_an_error_for_an_answer_to_ssl_request_is_a_message() -> None:
    """A server that does not know SSLRequest answers with a framed error, and the counting goes on."""
    framing = Framing()
    framing.from_client(SSL_REQUEST)
    assert framing.from_server(message(b"E", b"what?") + ANSWERS) == 2


async def test_a_warm_prepared_statement_is_one_trip(proxy: Proxy, cluster: Cluster) -> None:
    """Start-up is a connection, not a round trip; a warm fetchval is 1; BEGIN, SELECT, COMMIT are 3."""
    connection = await connect(proxy, cluster, server_settings={"application_name": "counted"})
    assert (proxy.connections, proxy.round_trips) == (1, 0)
    statement = await connection.prepare("SELECT 1")
    await statement.fetchval()
    proxy.reset_counts()
    assert await statement.fetchval() == 1
    assert proxy.round_trips == 1
    proxy.reset_counts()
    async with connection.transaction():
        await statement.fetchval()
    assert (proxy.connections, proxy.round_trips) == (0, 3)
    assert proxy.by_application == {"counted": 3}
    await connection.close()


async def test_large_answers_arrive_whole(proxy: Proxy, cluster: Cluster) -> None:
    """Megabytes both ways pass unchanged, with flow control, and are still one round trip."""
    connection = await connect(proxy, cluster)
    text = "Z" * 20_000_000
    statement = await connection.prepare("SELECT $1::text")
    proxy.reset_counts()
    assert await statement.fetchval(text) == text
    assert proxy.round_trips == 1
    await connection.close()


async def test_latency_is_per_client_message(proxy: Proxy, cluster: Cluster) -> None:
    """Each message waits at least that long, and messages keep their order."""
    connection = await connect(proxy, cluster)
    proxy.latency = 0.05
    started = time.monotonic()
    assert [await connection.fetchval("SELECT $1::int", number) for number in range(3)] == [0, 1, 2]
    assert time.monotonic() - started >= 0.15
    proxy.latency = 0.0
    await connection.close()


async def test_black_hole_needs_the_drivers_timeout(proxy: Proxy, cluster: Cluster) -> None:
    """Nothing answers and nothing is closed; after heal() what lost bytes is reset, and a new connection works."""
    connection, idle = await connect(proxy, cluster), await connect(proxy, cluster)
    proxy.black_hole()
    with pytest.raises(TimeoutError):
        await connection.fetchval("SELECT 1", timeout=0.1)
    with pytest.raises(TimeoutError):
        await connect(proxy, cluster, timeout=0.1)
    assert not proxy.passing
    proxy.heal()
    assert await idle.fetchval("SELECT 1") == 1
    fresh = await connect(proxy, cluster)
    assert await fresh.fetchval("SELECT 1") == 1
    await wait_until(connection.is_closed, what="the connection that lost bytes is reset")
    for each in (idle, fresh):
        await each.close()


async def test_frozen_bytes_arrive_when_healed(proxy: Proxy, cluster: Cluster) -> None:
    """A frozen network delivers late; it loses nothing, delayed messages included."""
    connection = await connect(proxy, cluster)
    proxy.latency = 0.01
    asked = asyncio.create_task(connection.fetchval("SELECT 41 + $1::int", 1))
    proxy.freeze()
    joining = asyncio.create_task(connect(proxy, cluster))
    assert (await asyncio.wait({asked, joining}, timeout=0.1))[0] == set()
    proxy.heal()
    assert await asked == 42
    await connection.close()
    await (await joining).close()


async def test_cut_is_an_error_at_once_and_heals(proxy: Proxy, cluster: Cluster) -> None:
    """Open connections are reset, new ones refused, and the same address answers again after heal()."""
    connection = await connect(proxy, cluster)
    address = proxy.address
    proxy.cut()
    proxy.cut()
    with pytest.raises((ConnectionError, asyncpg.PostgresConnectionError, asyncpg.InterfaceError)):
        await connection.fetchval("SELECT 1")
    with pytest.raises(ConnectionRefusedError):
        await connect(proxy, cluster)
    proxy.heal()
    assert proxy.address == address
    connection = await connect(proxy, cluster)
    assert await connection.fetchval("SELECT 1") == 1
    await connection.close()


async def test_refuse_leaves_open_connections_alone(proxy: Proxy, cluster: Cluster) -> None:
    """Only new connections are refused."""
    connection = await connect(proxy, cluster)
    proxy.refuse()
    with pytest.raises(ConnectionRefusedError):
        await connect(proxy, cluster)
    assert await connection.fetchval("SELECT 1") == 1
    await connection.close()


async def test_reset_is_a_tcp_reset(proxy: Proxy, cluster: Cluster) -> None:
    """The client gets ECONNRESET, not a polite end; a new connection is welcome."""
    reader, writer = await asyncio.open_connection(*proxy.address)
    writer.write(SSL_REQUEST)
    assert await reader.readexactly(1) == b"N"
    proxy.reset()
    with pytest.raises(ConnectionResetError):
        await reader.read()
    writer.close()
    with pytest.raises(ConnectionResetError):
        await writer.wait_closed()
    await (await connect(proxy, cluster)).close()


async def test_a_reset_right_after_the_connection_leaves_nothing(cluster: Cluster) -> None:
    """A task that is cancelled before its first step would keep the socket open, and the connection counted."""
    async with Proxy(cluster.primary.server.address) as proxy:
        with socket.create_connection(proxy.address) as sock:
            proxy._accept()
            proxy.reset()
            await wait_until(lambda: proxy.open_connections == 0, what="it is counted no more")
            sock.settimeout(5)
            assert sock.recv(1) == b""


async def test_a_server_that_is_down_closes_the_client(cluster: Cluster) -> None:
    """Behind a dead server the proxy lives on: clients see a reset, and the next server is reached."""
    async with Proxy(Address("127.0.0.1", 1)) as proxy:
        with pytest.raises((ConnectionError, asyncpg.PostgresConnectionError)):
            await connect(proxy, cluster)
        proxy.target = cluster.primary.server.address
        await (await connect(proxy, cluster)).close()


async def test_both_ends_close_together(proxy: Proxy, cluster: Cluster) -> None:
    """When the client goes the server hears of it, and no connection is left."""
    connection = await connect(proxy, cluster, server_settings={"application_name": "leaver"})
    assert proxy.open_connections == 1
    connection.terminate()
    await wait_until(
        lambda: cluster.primary.fetchval(
            "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = 'leaver')"
        ),
        what="the server has closed the session",
    )
    await wait_until(lambda: proxy.open_connections == 0, what="the proxy has forgotten it")


async def test_close_leaves_no_task(cluster: Cluster) -> None:
    """A closed proxy has no task, whatever its connections were doing."""
    before = asyncio.all_tasks()
    async with Proxy(cluster.primary.server.address) as proxy:
        busy, frozen = await connect(proxy, cluster), await connect(proxy, cluster)
        sleeping = asyncio.create_task(busy.execute("SELECT pg_sleep(60)"))
        proxy.freeze()
        stuck = asyncio.create_task(connect(proxy, cluster))
        await wait_until(lambda: proxy.open_connections == 3, what="the third connection is accepted")
    for task in (sleeping, stuck):
        with pytest.raises((ConnectionError, asyncpg.PostgresConnectionError)):
            await task
    await wait_until(frozen.is_closed, what="the client has noticed")
    await wait_until(busy.is_closed, what="the client has noticed")
    assert asyncio.all_tasks() - before == set()
    await proxy.close()
