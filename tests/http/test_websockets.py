"""WebSockets: the token of the handshake counts, and sessions last for a message or for the socket."""

from fastapi import WebSocket

from lagwise import Policy
from lagwise.fastapi import (
    ReadSession,
    RoutedSession,
    WriteSession,
)
from lagwise.testing import Cluster, wait_until
from tests.kit.http import (
    Socket,
    application,
    committed,
    http,
    insert,
    names,
    opened,
    with_items,
)
from tests.kit.routers import both_in_rotation, patient, router, stand_still, steady


async def test_a_websocket_opens_a_session_per_message(cluster: Cluster) -> None:
    """What one message wrote, the next one reads, for as long as the socket is open."""
    db = patient(cluster)
    app = application(db)

    @app.websocket("/ws")
    async def talk(socket: WebSocket) -> None:
        await socket.accept()
        async for name in socket.iter_text():
            async with db.write.begin() as session:
                await insert(session, name)
            async with db.read() as session:
                await socket.send_text(str(await names(session, name)))

    async with opened(app) as running:
        await both_in_rotation(db)
        await stand_still(cluster)
        async with Socket(running, "/ws") as socket:
            assert (await socket.heard())["type"] == "websocket.accept"
            assert [await socket.says("message"), await socket.says("message")] == ["1", "2"]


async def test_a_websocket_honours_the_token_of_its_handshake(cluster: Cluster) -> None:
    """A client that wrote over HTTP reads its write over a WebSocket; without the token it would not."""
    db = patient(cluster)
    app = application(db)
    with_items(app)

    @app.websocket("/ws")
    async def talk(socket: WebSocket, session: ReadSession) -> None:
        await socket.accept()
        async for name in socket.iter_text():
            await socket.send_text(str(await names(session, name)))

    async with opened(app) as running, http(running) as client:
        await both_in_rotation(db)
        await stand_still(cluster)
        token = (await client.post("/items/over-http")).headers["lagwise-token"].encode()
        answers = {}
        for carrier, headers in {
            "cookie": [(b"cookie", b"theme=dark; lagwise=" + token)],
            "header": [(b"lagwise-token", token)],
            "nothing": [],
        }.items():
            async with Socket(running, "/ws", headers) as socket:
                await socket.heard()
                answers[carrier] = await socket.says("over-http")
        assert answers == {"cookie": "1", "header": "1", "nothing": "0"}


async def test_a_websocket_commits_its_write_session_when_it_ends(cluster: Cluster) -> None:
    """WriteSession as a dependency of a WebSocket: one transaction, committed when the endpoint returns."""
    db = steady(cluster)
    app = application(db)

    @app.websocket("/ws")
    async def talk(socket: WebSocket, session: WriteSession) -> None:
        await socket.accept()
        await insert(session, await socket.receive_text())
        await socket.send_text("written")

    async with opened(app) as running:
        async with Socket(running, "/ws") as socket:
            await socket.heard()
            assert await socket.says("by socket") == "written"
        assert await committed(cluster, "by socket") == 1


async def test_a_websocket_routed_session_may_write(cluster: Cluster) -> None:
    """A WebSocket has no method that says it only reads."""
    db = steady(cluster)
    app = application(db)

    @app.websocket("/ws")
    async def talk(socket: WebSocket, session: RoutedSession) -> None:
        await socket.accept()
        await socket.send_text(session.info["lagwise.route"].reason)

    async with opened(app) as running, Socket(running, "/ws") as socket:
        await socket.heard()
        assert (await socket.heard())["text"] == "write"


async def test_a_websocket_without_a_primary_is_told_to_come_back(cluster: Cluster) -> None:
    """The handshake of an endpoint that must write is refused with 1013, try again later."""
    db = router(cluster, Policy(probe_interval=0.05))
    app = application(db)

    @app.websocket("/ws")
    async def talk(socket: WebSocket, session: WriteSession) -> None:
        raise AssertionError("never reached")

    async with opened(app) as running:
        await cluster.cut("primary")
        await wait_until(lambda: db.view.primary is None, what="the primary is gone")
        async with Socket(running, "/ws") as socket:
            heard = await socket.heard()
            assert (heard["type"], heard["code"]) == ("websocket.close", 1013)
