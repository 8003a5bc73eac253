"""A replica is promoted: writes follow the highest timeline, and nobody else gets any."""

import asyncio
import logging
from math import inf
from typing import Any

import pytest
from sqlalchemy import text

from lagwise import Causality, NoPrimary, Policy, Router, RoutingError
from lagwise._nodes.prober import Prober
from lagwise.health import nodes
from lagwise.testing import Cluster, wait_until
from tests.kit.logs import event_of
from tests.kit.metrics import registered, scrape
from tests.kit.routers import QUICK, in_rotation, router
from tests.kit.sessions import write


async def test_the_primary_dies_and_a_replica_takes_over(doomed: Cluster) -> None:
    """Writes fail by name meanwhile, then go to the promoted node; every acknowledged one it has is read."""
    async with router(doomed, QUICK) as db:
        await in_rotation(db, "replica-1", "replica-2")
        assert await write(db, "before") == "primary"
        await doomed.caught_up()
        await doomed.kill("primary")
        with pytest.raises(RoutingError):
            await write(db, "nobody takes this")
        await doomed.promote("replica-1")
        await wait_until(lambda: db.view.primary is not None, what="the promoted primary to be seen")
        with Causality():
            assert await write(db, "after") == "replica-1"
            async with db.read() as session:
                assert await session.scalar(text("SELECT count(*) FROM item WHERE name IN ('before', 'after')")) == 2
        # replica-2 still follows the dead primary: it is out, by name, until it follows the new one.
        assert db.view.node("replica-2").standing == "other-timeline"
        await doomed.follow("replica-2", of="replica-1")
        await in_rotation(db, "replica-2")


async def test_the_old_primary_comes_back(doomed: Cluster) -> None:
    """It says that it is a primary, on the old timeline: it gets no write, from old or new processes."""
    async with router(doomed, QUICK) as db:
        await in_rotation(db, "replica-1", "replica-2")
        await doomed.kill("primary")
        await doomed.promote("replica-1")
        await doomed.follow("replica-2", of="replica-1")
        await in_rotation(db, "replica-2")
        await doomed.start("primary")
        await wait_until(lambda: db.view.node("primary").reading is not None, what="the old primary to answer")
        assert db.view.node("primary").standing == "rival-primary"
        async with router(doomed, QUICK) as fresh:
            assert {await write(each, "to the new one") for each in (db, fresh) for _ in range(5)} == {"replica-1"}
        assert await doomed["primary"].fetchval("SELECT count(*) FROM item WHERE name = 'to the new one'") == 0


async def test_the_old_primary_alone_is_not_believed(doomed: Cluster) -> None:
    """The new primary is out of sight, the old one is back: who knows of the later timeline writes nowhere."""
    async with router(doomed, QUICK) as db:
        await in_rotation(db, "replica-1", "replica-2")
        await doomed.kill("primary")
        await doomed.promote("replica-1")
        await doomed.follow("replica-2", of="replica-1")
        await in_rotation(db, "replica-2")
        await doomed.cut("replica-1")
        await doomed.start("primary")
        await wait_until(lambda: db.view.node("primary").reading is not None, what="the old primary to answer")
        with pytest.raises(NoPrimary):
            await write(db, "astray")
        async with router(doomed, QUICK) as fresh:
            await wait_until(lambda: fresh.view.node("replica-2").reading is not None, what="a witness")
            with pytest.raises(NoPrimary):
                await write(fresh, "astray")
        assert await doomed["primary"].fetchval("SELECT count(*) FROM item WHERE name = 'astray'") == 0


async def test_two_primaries_on_one_timeline(doomed: Cluster, caplog: pytest.LogCaptureFixture) -> None:
    """Nobody can tell them apart: NoPrimary, and an error in the log, until one is gone."""
    await doomed.promote("replica-1")
    async with router(doomed, QUICK) as db:
        assert await write(db, "to the promoted one") == "replica-1"
        view = db.view
        two = [node for node in view.nodes if node.reading is not None and node.reading.role == "primary"]
        assert [node.standing for node in two] == ["rival-primary", "primary"]
    with caplog.at_level(logging.ERROR, "lagwise"):
        # Both of them promoted from the same timeline: the same number, two histories.
        await doomed.promote("replica-2")
        async with router(doomed, QUICK) as db:
            with pytest.raises(NoPrimary, match="two nodes say that they are the primary"):
                await write(db, "to neither")
    assert "two-primaries" in map(event_of, caplog.records)


async def test_a_token_of_the_old_timeline_reads_from_the_primary(doomed: Cluster) -> None:
    """Its position means nothing on the new timeline's replicas, though they may be past it in number."""
    async with router(doomed, QUICK) as db:
        await in_rotation(db, "replica-1", "replica-2")
        with Causality() as seen:
            await write(db, "old timeline")
        await doomed.caught_up()
        await doomed.kill("primary")
        await doomed.promote("replica-1")
        await doomed.follow("replica-2", of="replica-1")
        await in_rotation(db, "replica-2")
        with Causality(seen.token):
            async with db.read() as session:
                route = session.info["lagwise.route"]
                assert (route.node, route.reason) == ("replica-1", "other-timeline")
                assert await session.scalar(text("SELECT count(*) FROM item WHERE name = 'old timeline'")) == 1


async def test_log_of_another_history_is_no_lag(doomed: Cluster) -> None:
    """The deposed primary and its replica write past the new one: they are not 0 bytes behind, but not comparable."""
    left = {"primary": "rival-primary", "replica-2": "other-timeline"}
    async with router(doomed, QUICK) as db:
        registry = registered(db)
        await in_rotation(db, "replica-1", "replica-2")
        await doomed.promote("replica-1")
        await doomed["primary"].execute("INSERT INTO item (name) SELECT 'lost' FROM generate_series(1, 1000)")
        await wait_until(lambda: all(db.view.node(name).standing == left[name] for name in left), what="who is left")
        written = await doomed.primary.fetchval("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn")

        def past_it(name: str) -> bool:
            reading = db.view.node(name).reading
            return reading is not None and reading.lsn > written

        await wait_until(lambda: all(past_it(name) for name in left), what="they have more log than the primary")
        assert {name: node.lag_bytes for name, node in nodes(db).nodes.items()} == {
            "replica-1": 0,
            **dict.fromkeys(left),
        }
        assert scrape(registry).by("lagwise_node_lag_bytes", "node") == dict.fromkeys(left, inf)


async def test_a_pooled_connection_to_a_demoted_primary(doomed: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """The primary is restarted as a replica of the new one before any probe: its write is refused by name."""
    read, may_probe = Prober.read, asyncio.Event()

    async def held(prober: Prober) -> Any:
        await may_probe.wait()
        return await read(prober)

    slow = Policy(probe_interval=60, max_lag=120, sticky_window=120, probe_timeout=0.5)
    async with router(doomed, slow) as db:
        await in_rotation(db, "replica-1", "replica-2")
        await write(db, "before")
        monkeypatch.setattr(Prober, "read", held)
        await doomed.promote("replica-1")
        await doomed.stop("primary")
        await doomed.rejoin("primary", of="replica-1")
        with pytest.raises(RoutingError):
            await write(db, "to a replica")
        may_probe.set()
        await wait_until(lambda: db.view.primary is not None or _nudged(db), what="the new primary")
        assert await write(db, "after") == "replica-1"


def _nudged(db: Router) -> bool:
    db._nodes.monitor.hurry(tuple(node.name for node in db.view.nodes))
    return False


async def test_without_a_primary_tokens_are_still_honoured(cluster: Cluster) -> None:
    """The primary is dead: reads go on, a floor is still a floor, and what none has is a named error."""
    async with router(cluster, QUICK) as db:
        await in_rotation(db, "replica-1", "replica-2")
        with Causality() as replicated:
            await write(db, "everywhere")
        await cluster.caught_up()
        for replica in cluster.replicas:
            await cluster.pause_replay(replica)
        with Causality() as unreplicated:
            await write(db, "nowhere else")
        await cluster.kill("primary")
        await wait_until(lambda: db.view.primary is None, what="the primary to be missed")
        with Causality(replicated.token):
            async with db.read() as session:
                assert await session.scalar(text("SELECT count(*) FROM item WHERE name = 'everywhere'")) == 1
        with Causality(unreplicated.token), pytest.raises(NoPrimary):
            async with db.read():
                pass


@pytest.mark.parametrize("cut_off", [False, True], ids=["a dead primary", "cut off from a living one"])
async def test_without_primary_is_the_users_choice(cluster: Cluster, cut_off: bool) -> None:
    """Staleness cannot be bounded any more: serve says so in its reason, refuse raises NoPrimary."""
    choices = {
        each: Policy(max_lag=0.5, sticky_window=0.5, probe_interval=0.1, probe_timeout=0.3, without_primary=each)
        for each in ("serve", "refuse")
    }
    async with router(cluster, choices["serve"]) as serving, router(cluster, choices["refuse"]) as refusing:
        for db in (serving, refusing):
            await in_rotation(db, "replica-1", "replica-2")
        await (cluster.cut("primary") if cut_off else cluster.kill("primary"))
        for db in (serving, refusing):
            await in_rotation(db)  # nobody is fresh any more
        async with serving.read() as session:
            assert session.info["lagwise.route"].reason == "no-primary"
            assert await session.scalar(text("SELECT pg_is_in_recovery()"))
        with pytest.raises(NoPrimary):
            async with refusing.read():
                pass
