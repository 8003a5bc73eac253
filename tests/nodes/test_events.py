"""Events: one seam for all who watch a Router."""

import asyncio
import logging
from dataclasses import FrozenInstanceError, fields
from typing import TypeVar

import pytest
from sqlalchemy import text

from lagwise import LSN, Causality, CausalToken, NoReplica, Policy, Router, events
from lagwise._client.signature import Seal
from lagwise._decide.token import Position
from lagwise._nodes.log import log_event
from lagwise.asgi import CausalityMiddleware
from lagwise.testing import Cluster, wait_until
from tests.kit.logs import event_of
from tests.kit.routers import QUICK, in_rotation, router, stand_still

Kind = TypeVar("Kind", bound=events.Event)


async def read(db: Router) -> None:
    """One read session."""
    async with db.read() as session:
        await session.execute(text("SELECT 1"))


async def write(db: Router) -> None:
    """One commit."""
    async with db.write.begin() as session:
        await session.execute(text("INSERT INTO item (name) VALUES ('watched')"))


def of(kind: type[Kind], seen: list[events.Event]) -> list[Kind]:
    """The events of this kind."""
    return [event for event in seen if isinstance(event, kind)]


async def test_sessions_and_commits_are_told(cluster: Cluster) -> None:
    """Where each session went and why, and whether a commit got its position."""
    seen: list[events.Event] = []
    async with router(cluster, on_event=seen.append) as db:
        await in_rotation(db, "replica-1", "replica-2")
        seen.clear()
        await read(db)
        with Causality():
            await write(db)
    one, two, three = seen
    assert isinstance(one, events.Routed)
    assert (one.write, one.waited, one.route.on_replica, one.route.fell_back) == (False, 0.0, True, False)
    assert isinstance(two, events.Routed)
    assert (two.write, two.route.node, two.route.reason) == (True, "primary", "write")
    assert three == events.PositionAsked(node="primary", found=True)


async def test_waiting_and_falling_back_are_told(cluster: Cluster) -> None:
    """A read that waits in vain for a replica, and goes to the primary, says for how long and in whose place."""
    seen: list[events.Event] = []
    policy = Policy(max_lag=60, sticky_window=60, catch_up=0.2, probe_timeout=5)
    async with router(cluster, policy, on_event=seen.append) as db:
        await in_rotation(db, "replica-1", "replica-2")
        await stand_still(cluster)
        with Causality():
            await write(db)
            await read(db)
    told = of(events.Routed, seen)[-1]
    assert (told.route.node, told.route.reason, told.route.fell_back) == ("primary", "none-caught-up", True)
    assert told.waited >= 0.2


async def test_a_refusal_is_told(cluster: Cluster) -> None:
    """A read that no node may serve is told by the class of its error."""
    seen: list[events.Event] = []
    policy = Policy(max_lag=60, sticky_window=60, catch_up=0, probe_timeout=5, fall_back=False)
    async with router(cluster, policy, on_event=seen.append) as db:
        await in_rotation(db, "replica-1", "replica-2")
        await stand_still(cluster)
        with Causality():
            await write(db)
            with pytest.raises(NoReplica):
                await read(db)
    (told,) = of(events.Refused, seen)
    assert (told.error, told.write) == ("NoReplica", False)


async def test_a_kill_and_a_promotion_are_told(doomed: Cluster) -> None:
    """A node that goes, its successor, and why it cannot be read; and no address is in any event."""
    seen: list[events.Event] = []
    async with router(doomed, QUICK, on_event=seen.append) as db:
        await in_rotation(db, "replica-1", "replica-2")
        await doomed.kill("primary")
        await wait_until(lambda: db.view.primary is None, what="the loss of the primary")
        assert of(events.Promoted, seen) == []
        await doomed.promote("replica-1")
        await wait_until(lambda: db.view.primary is not None, what="the new primary")
    gone = next(event for event in of(events.NodeChanged, seen) if event.standing == "unreachable")
    assert (gone.node, gone.before) == ("primary", "primary")
    assert gone.error is not None
    assert {event.node for event in of(events.NodeUnreachable, seen)} == {"primary"}
    assert of(events.Promoted, seen) == [events.Promoted(node="replica-1", before="primary", timeline=2)]
    ports = {node.url.rpartition(":")[2].partition("/")[0] for node in doomed.nodes.values()}
    assert not [event for event in seen for each in ("127.0.0.1", "localhost", *ports) if each in repr(event)]


async def test_a_token_that_is_ignored_is_told_once(cluster: Cluster) -> None:
    """The middleware reads it, and the first session of its request tells why; the text itself is told to no one."""
    seen: list[events.Event] = []
    brought = CausalToken.of([Position(system=7, timeline=1, lsn=LSN(64), issued_at=1)])
    forged = Seal("another application's").sealed(brought)

    async with router(cluster, on_event=seen.append) as db:
        await in_rotation(db, "replica-1", "replica-2")
        seen.clear()

        async def application(scope: object, receive: object, send: object) -> None:
            await read(db)
            await read(db)

        app = CausalityMiddleware(application, secret="s" * 32)
        scope = {"type": "http", "headers": [(b"lagwise-token", forged.encode())] * 40}
        await app(scope, None, None)  # type: ignore[arg-type]
        assert [type(event) for event in seen] == [events.TokenIgnored, events.Routed, events.Routed]
        assert forged not in repr(seen)


async def test_a_watcher_that_fails_harms_nothing(cluster: Cluster, caplog: pytest.LogCaptureFixture) -> None:
    """What it raises is logged by its class, and sessions and the monitor go on."""

    def broken(event: events.Event) -> None:
        raise RuntimeError("postgresql://someone:secret@host")

    with caplog.at_level(logging.ERROR, "lagwise"):
        async with router(cluster, on_event=broken) as db:
            await in_rotation(db, "replica-1", "replica-2")
            await read(db)
            await write(db)
    failed = [record for record in caplog.records if event_of(record) == "watcher-failed"]
    assert {"NodeChanged", "Routed"} <= {record.__dict__["watched"] for record in failed}
    assert "secret" not in caplog.text


async def test_watchers_come_and_go_while_the_router_runs(cluster: Cluster) -> None:
    """Each hears what happens between its coming and its going, once; another one's going ends nothing."""
    first, second = list[events.Event](), list[events.Event]()
    async with router(cluster, Policy(probe_interval=60, probe_timeout=5), on_event=first.append) as db:
        await in_rotation(db, "replica-1", "replica-2")
        stop = db.watch(second.append)
        first.clear()
        await read(db)
        assert [type(event) for event in second] == [events.Routed] == [type(event) for event in first]
        stop()
        stop()
        await read(db)
    assert (len(second), [type(event) for event in first]) == (1, [events.Routed] * 2)


async def test_the_log_and_the_watcher_hear_the_same(cluster: Cluster, caplog: pytest.LogCaptureFixture) -> None:
    """Each event of a node is one record: its word, and its attributes, in `extra` as well."""
    seen: list[events.Event] = []
    with caplog.at_level(logging.INFO, "lagwise"):
        async with router(cluster, on_event=seen.append) as db:
            await in_rotation(db, "replica-1", "replica-2")
    told = [event for event in seen if isinstance(event, events.NodeChanged)]
    logged = [record for record in caplog.records if event_of(record) == "node-changed"]
    assert [(event.node, event.standing) for event in told] == [
        (record.__dict__["node"], record.__dict__["standing"]) for record in logged
    ]


@pytest.mark.parametrize(
    "event",
    [
        events.NodeChanged(node="replica-1", before=None, standing="in-rotation"),
        events.NodeUnreachable(node="replica-1", error="X"),
        events.NodeRefusesConnections(node="replica-1", error="X"),
        events.Promoted(node="replica-1", before="primary", timeline=2),
        events.TwoPrimaries(nodes=("primary", "replica-1")),
        events.ClusterUnconfirmed(nodes=("primary",), system=0),
        events.ClusterChanged(believed=1, system=2),
        events.TimelineAbandoned(believed=2, timeline=1),
        events.DatabaseChanged(believed=16385, database=16390),
        events.BeliefContradicted(believed=(1, 2), said=(1, 1), for_seconds=3.0),
    ],
    ids=lambda event: type(event).__name__,
)
def test_what_happens_to_nodes_is_logged(event: events.Event, caplog: pytest.LogCaptureFixture) -> None:
    """Every event of a node has a word, its attributes follow, and none clashes with those of a log record."""
    with caplog.at_level(logging.INFO, "lagwise"):
        log_event(event)
    (record,) = caplog.records
    word = event_of(record)
    told = [f"{each.name}={getattr(event, each.name)}" for each in fields(event)]
    assert record.getMessage() == f"{word}: {' '.join(told)}"
    assert {each.name: getattr(event, each.name) for each in fields(event)}.items() <= record.__dict__.items()
    with pytest.raises(FrozenInstanceError):
        setattr(event, fields(event)[0].name, None)


async def test_an_event_comes_in_the_event_loop(cluster: Cluster) -> None:
    """A watcher may use what belongs to the loop: a queue, a task, a context variable of the request."""
    loops: set[object] = set()
    async with router(cluster, on_event=lambda _: loops.add(asyncio.get_running_loop())) as db:
        await in_rotation(db, "replica-1", "replica-2")
        await read(db)
        assert loops == {asyncio.get_running_loop()}
