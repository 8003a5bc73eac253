"""Read sessions held open while their client writes: streams, snapshots, connections, a deposed primary."""

import pytest
from sqlalchemy import select, text

from lagwise import Causality, NoPrimary, NoReplica, Policy, Router
from lagwise._client.http import ASGIApp, Message, Receive, Scope, Send
from lagwise._decide.lsn import LSN
from lagwise._decide.refusing import refusal
from lagwise._decide.route import Demand, deposed, route
from lagwise._decide.token import Position
from lagwise.asgi import CausalityMiddleware
from lagwise.testing import Cluster, wait_until
from tests.kit.application import Item
from tests.kit.routers import PATIENT, in_rotation, let_go, router
from tests.kit.sessions import count, on_replica, write
from tests.kit.worlds import after, primary, replica, unreachable


@pytest.fixture
def db(still: Router) -> Router:
    """The replicas show what there was, and nothing that comes."""
    return still


async def test_a_stream_pins_a_snapshot_only_until_the_client_writes(cluster: Cluster, db: Router) -> None:
    """A cursor needs a transaction, in which later statements see what their node has got meanwhile."""
    with Causality():
        async with db.read() as session:
            await (await session.stream(select(Item.id).limit(1))).all()
            await write(db, "after a stream")
            await let_go(cluster, db)
            assert await count(session, "after a stream") == 1


async def test_a_stream_half_read_survives(db: Router) -> None:
    """A session amid a stream cannot move to its client's write, and says so; what is to come of the stream comes."""
    with Causality():
        async with db.read() as session:
            stream = await session.stream(text("SELECT generate_series(1, 100000)"))
            await stream.fetchmany(1)
            await write(db, "amid a stream")
            with pytest.raises(NoReplica, match=r"db\.read\(primary=True\)"):
                await count(session, "amid a stream")
            await stream.fetchmany(1)


@pytest.mark.parametrize("used", [False, True], ids=["unused", "after its commit"])
async def test_a_snapshot_not_taken_yet_includes_the_write(db: Router, used: bool) -> None:
    """A snapshot session promises one moment, which is that of its first statement."""
    name = f"no snapshot, used: {used}"
    with Causality():
        async with db.read(snapshot=True) as session:
            if used:
                await count(session, name)
                await session.commit()
            await write(db, name)
            assert await count(session, name) == 1


async def test_a_connection_is_one_that_has_the_write(db: Router) -> None:
    """`session.connection()` goes past the statements' hook, and is looked after all the same."""
    with Causality():
        async with db.read() as session:
            await write(db, "by connection")
            found = await (await session.connection()).execute(
                text("SELECT count(*) FROM item WHERE name = 'by connection'")
            )
            assert found.scalar() == 1


async def test_a_block_begun_after_the_write_has_it(db: Router) -> None:
    """`session.begin()` chooses again before it begins."""
    with Causality():
        async with db.read() as session:
            await write(db, "before the block")
            async with session.begin():
                assert await count(session, "before the block") == 1


async def test_an_open_session_is_not_older_than_what_another_has_shown(cluster: Cluster) -> None:
    """guarantee="session": what one session has read, another that was open before reads too."""
    policy = Policy(max_lag=60, sticky_window=60, catch_up=0, guarantee="session", probe_timeout=5)
    async with router(cluster, policy) as db:
        await in_rotation(db, "replica-1", "replica-2")
        await cluster.pause_replay("replica-1")
        with Causality():
            db.drain("replica-2")
            async with db.read() as old:
                await on_replica(old)
                db.undrain("replica-2")
                db.drain("replica-1")
                with Causality(None):
                    await write(db, "seen elsewhere")
                ahead = cluster["replica-2"]

                async def replayed() -> bool:
                    return bool(await ahead.fetchval("SELECT count(*) FROM item WHERE name = 'seen elsewhere'"))

                await wait_until(replayed, what="replica-2")
                async with db.read() as new:
                    assert await count(new, "seen elsewhere") == 1
                assert await count(old, "seen elsewhere") == 1


async def test_an_open_session_leaves_a_deposed_primary() -> None:
    """The client wrote to the promoted node: a session still open on the old primary goes there too."""
    async with Cluster(replicas=1) as cluster:
        await cluster.primary.execute("CREATE TABLE item (id serial PRIMARY KEY, name text)")
        await cluster.caught_up()
        async with router(cluster, PATIENT) as db:
            await in_rotation(db, "replica-1")
            with Causality():
                async with db.read(primary=True) as session:
                    assert not await on_replica(session)
                    await cluster.promote("replica-1")
                    await wait_until(
                        lambda: db.view.primary is not None and db.view.primary.name == "replica-1", what="the promoted"
                    )
                    await write(db, "on the promoted")
                    assert await count(session, "on the promoted") == 1


def test_a_fast_clock_does_not_drop_a_good_floor() -> None:
    """A position past the last sample, called expired by a clock that is ahead, is kept until the primary is asked."""
    view = after([primary(40, 8.0), replica("replica-1", 45)], [primary(45, 9.0), replica("replica-1", 45)])
    request = Demand(timeline=1, floor=LSN(50), expired=True)
    assert not route(view, Policy(), request, 9.3).on_replica
    assert route(view, Policy(), request, 9.0).on_replica


def test_a_write_refused_for_a_later_timeline_says_so() -> None:
    """It is the primary that is missing, not a replica, and no setting would help."""
    view = after([primary(90, 9.0), unreachable("replica-1")])
    demand = Demand(write=True, timeline=2, floor=LSN(1))
    chosen = route(view, Policy(), demand, 10.0)
    error = refusal(view, Policy(), chosen, 10.0, deposed=deposed(view, demand, 10.0))
    assert isinstance(error, NoPrimary)
    assert "fall_back" not in str(error)


async def test_one_cookie_for_two_windows_lives_as_long_as_the_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two open Routers, windows of 600 and 5 seconds: a write to one does not shorten the other's token."""
    monkeypatch.setattr("lagwise._client.known.windows", [600.0, 5.0])

    def answering(window: float, system: int) -> ASGIApp:
        async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
            seen = Causality.current()
            assert seen is not None
            position = Position(system=system, timeline=1, lsn=LSN(5), issued_at=100)
            commit = seen.begin(system, window)
            commit.announce()
            commit.at(position)
            await send({"type": "http.response.start", "status": 200, "headers": []})

        return CausalityMiddleware(app, secret="s")

    async def call(app: ASGIApp, cookie: str) -> list[str]:
        cookies: list[str] = []

        async def send(message: Message) -> None:
            cookies.extend(value.decode() for name, value in message["headers"] if name == b"set-cookie")

        async def receive() -> Message:
            raise AssertionError

        await app({"type": "http", "headers": [(b"cookie", cookie.encode())]}, receive, send)
        return cookies

    first = await call(answering(600.0, 1), "")
    brought = "; ".join(cookie.partition(";")[0] for cookie in first)
    second = await call(answering(5.0, 2), brought)
    assert {True} == {"Max-Age=6001" in cookie for cookie in [*first, *second] if "Max-Age=0;" not in cookie}
