"""The monitor cannot go blind, and it stops."""

import asyncio
import logging
from time import monotonic

import pytest

from lagwise import Policy, Router
from lagwise._nodes.monitor import Monitor
from lagwise._say import say
from lagwise.testing import Cluster, wait_until
from tests.kit.logs import a_filter_that_raises, event_of

QUICK = Policy(probe_interval=0.05, probe_timeout=0.3, abort_after=1.0)


def router(cluster: Cluster, policy: Policy = QUICK) -> Router:
    return Router(cluster.primary.url, {node.name: node.url for node in cluster.replicas}, policy=policy)


async def seen(db: Router) -> None:
    """Wait until every node has been read from now on."""
    began = monotonic()
    await wait_until(lambda: db.view.heard_from_all(began), what="a new reading of every node")


async def test_a_filter_that_raises_blinds_nobody(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    """Every event of the monitor raises LookupError in a logging filter: nodes leave and come back as ever."""
    with a_filter_that_raises():
        async with router(cluster) as db:
            await seen(db)
            await cluster.restart("replica-1")
            await wait_until(lambda: db.view.node("replica-1").reading is None, what="the restart to be seen")
            await seen(db)
            await cluster.restart("primary")
            await seen(db)
            assert not db._nodes.monitor.ended
    assert "node-unreachable" in capsys.readouterr().err


async def test_what_fails_outside_of_a_probe_is_said_and_gone_on_from(
    cluster: Cluster, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error in the monitor's own bookkeeping: the watch says so and reads on."""
    async with router(cluster) as db:
        await seen(db)
        publish = Monitor._publish

        def fails(monitor: Monitor, *news: object) -> None:
            monkeypatch.setattr(Monitor, "_publish", publish)
            raise RuntimeError

        monkeypatch.setattr(Monitor, "_publish", fails)
        await wait_until(lambda: "watch-failed" in map(event_of, caplog.records), what="the failure to be said")
        await seen(db)


async def test_a_watch_that_is_cancelled_is_begun_again(cluster: Cluster, caplog: pytest.LogCaptureFixture) -> None:
    """A stray cancellation ends the task of one node: it is said, and the node is read on."""
    async with router(cluster) as db:
        await seen(db)
        next(task for task in asyncio.all_tasks() if task.get_name() == "lagwise-monitor-replica-1").cancel()
        said = "watch-restarted: node=replica-1 error=cancelled"
        await wait_until(lambda: said in caplog.messages, what="the end to be said")
        await seen(db)


async def test_an_end_for_good_is_not_silent(cluster: Cluster, caplog: pytest.LogCaptureFixture) -> None:
    """The one task of the monitor is cancelled by a stranger: `ended` says so, and the log."""
    async with router(cluster) as db:
        await seen(db)
        monitor = db._nodes.monitor
        assert not monitor.ended
        assert monitor._task is not None
        monitor._task.cancel()
        await wait_until(lambda: monitor.ended, what="the end")
        assert "monitor-ended" in caplog.messages


def test_an_event_reaches_its_handlers(caplog: pytest.LogCaptureFixture) -> None:
    """The message is the event and its fields, which are attributes of the record as well."""
    say(logging.WARNING, "node-unreachable", node="replica-1")
    assert [(each.getMessage(), each.node) for each in caplog.records] == [  # type: ignore[attr-defined]
        ("node-unreachable: node=replica-1", "replica-1")
    ]


def test_an_ordinary_formatter_prints_the_fields(caplog: pytest.LogCaptureFixture) -> None:
    """What `logging.basicConfig()` prints tells the node and the cause."""
    say(logging.WARNING, "node-unreachable", node="primary", error="InvalidPasswordError (28P01)")
    printed = [logging.Formatter(logging.BASIC_FORMAT).format(each) for each in caplog.records]
    assert printed == ["WARNING:lagwise:node-unreachable: node=primary error=InvalidPasswordError (28P01)"]


def test_records_of_one_event_have_one_template(caplog: pytest.LogCaptureFixture) -> None:
    """Error trackers group by it: the fields are the arguments, of which only the message is made."""
    for node in ("replica-1", "replica-2"):
        say(logging.WARNING, "node-unreachable", node=node, error="refused")
    assert {each.msg for each in caplog.records} == {"node-unreachable: node=%(node)s error=%(error)s"}
    assert [each.args for each in caplog.records] == [
        {"node": "replica-1", "error": "refused"},
        {"node": "replica-2", "error": "refused"},
    ]


def test_a_percent_sign_is_text(caplog: pytest.LogCaptureFixture) -> None:
    """In the event, with fields and without, and in a field: no record is lost, and each is printed as it is."""
    say(logging.WARNING, "100 %s", node="%d %(error)s")
    say(logging.WARNING, "100 %s")
    assert caplog.messages == ["100 %s: node=%d %(error)s", "100 %s"]


async def test_it_stops_while_every_node_is_silent(cluster: Cluster) -> None:
    """Black holes before all servers, connections open, probes under way: stopped within `close_timeout`."""
    policy = Policy(probe_interval=0.05, probe_timeout=20, abort_after=60, close_timeout=1.0)
    db = router(cluster, policy)
    await db.__aenter__()
    try:
        await seen(db)
        for name in cluster.nodes:
            await cluster.black_hole(name)
        monitor = db._nodes.monitor
        loop = asyncio.get_running_loop()
        began = loop.time()
        await monitor.stop()
        assert loop.time() - began < 2 * policy.close_timeout
        assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("lagwise-monitor")]
    finally:
        await cluster.heal()
        await db.__aexit__(None, None, None)
