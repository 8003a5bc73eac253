"""Which cluster is ours, on real servers: strangers, undone promotions, upgrades, second names."""

from collections.abc import AsyncIterator

import pytest
from sqlalchemy import URL, make_url, text

from lagwise import NoPrimary, Policy, Router, RoutingError
from lagwise._nodes.monitor import Monitor
from lagwise._pools.traffic import ANY_SERVER
from lagwise.testing import Cluster, wait_until
from tests.kit.logs import event_of
from tests.kit.routers import LONG, in_rotation

QUICK = Policy(max_lag=1, sticky_window=1, probe_interval=0.05, probe_timeout=0.5)


async def prepared(cluster: Cluster, name: str) -> None:
    """A table to write to, and one that says whose it is."""
    await cluster.primary.execute(f"""
        DROP TABLE IF EXISTS whose, made;
        CREATE TABLE whose (name text);
        INSERT INTO whose VALUES ('{name}');
        CREATE TABLE made (name text)
    """)
    await cluster.caught_up()


async def written(db: Router) -> str:
    """The cluster that a write reaches."""
    async with db.write.begin() as session:
        await session.execute(text("INSERT INTO made VALUES ('written')"))
        return str(await session.scalar(text("SELECT name FROM whose")))


async def shown(db: Router) -> str:
    """The cluster that a read reaches."""
    async with db.read() as session:
        return str(await session.scalar(text("SELECT name FROM whose")))


async def well(db: Router, *names: str) -> None:
    """Wait until these replicas are in rotation, fresh, and there is a primary."""
    await in_rotation(db, *names, timeout=30)
    await wait_until(lambda: db.view.primary is not None, what="a primary", timeout=30)


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The errors that were logged."""
    return [event_of(record) for record in caplog.records if record.levelname == "ERROR"]


async def test_a_promotion_that_is_undone_heals(caplog: pytest.LogCaptureFixture) -> None:
    """A replica promoted by mistake and rejoined: writes come back without a restart, and the log says so."""
    async with Cluster(replicas=2) as cluster:
        await prepared(cluster, "ours")
        primary, *replicas = cluster.nodes.values()
        async with Router(primary.url, {node.name: node.url for node in replicas}, policy=QUICK) as db:
            await well(db, "replica-1", "replica-2")
            await cluster.promote("replica-2")
            await wait_until(
                lambda: db.view.primary is not None and db.view.primary.name == "replica-2", what="it leads"
            )
            await cluster.rejoin("replica-2", of="primary")
            await well(db, "replica-1", "replica-2")
            assert await written(db) == "ours"
            assert db.view.primary is not None
            assert db.view.primary.name == "primary"
    assert logged(caplog)[-2:] == ["belief-contradicted", "timeline-abandoned"]


async def test_a_lone_node_in_recovery_is_no_promotion_undone(caplog: pytest.LogCaptureFixture) -> None:
    """A switchover behind the one address, for longer than any belief needs to give way: no error but NoPrimary."""
    async with Cluster(replicas=1) as cluster:
        await prepared(cluster, "ours")
        async with Router(cluster["primary"].url, policy=QUICK) as db:
            assert await written(db) == "ours"
            await cluster.promote("replica-1")
            await cluster.rejoin("primary", of="replica-1")

            def recovering_since(moment: float) -> bool:
                reading = db.view.node("primary").reading
                return reading is not None and reading.role == "replica" and reading.at >= moment

            await wait_until(lambda: recovering_since(0.0), what="it is seen in recovery")
            enough = db.view.at + db.view.terms.patience + QUICK.probe_interval
            await wait_until(lambda: recovering_since(enough), what="it has been so for long enough", timeout=30)
            with pytest.raises(NoPrimary, match="no primary can be reached"):
                await written(db)
            assert db.view.timeline == 1
            await cluster.promote("primary")
            await wait_until(lambda: db.view.primary is not None, what="it is the primary again")

            async def taken() -> bool:
                try:
                    return await written(db) == "ours"
                except NoPrimary:  # a connection of the pool says what the server was when it last answered there
                    return False

            await wait_until(taken, what="it takes a write")
    assert logged(caplog) == []


@pytest.fixture
async def two(cluster: Cluster, elsewhere: Cluster) -> AsyncIterator[tuple[Cluster, Cluster]]:
    """Two clusters of a primary and replicas, with one role in common."""
    for each, name in ((cluster, "one"), (elsewhere, "other")):
        await each.primary.execute("CREATE ROLE app SUPERUSER LOGIN PASSWORD 'app'")
        await prepared(each, name)
    yield cluster, elsewhere
    for each in (cluster, elsewhere):
        await each.start("primary")
        await each.primary.execute("DROP ROLE app")


def as_app(url: str) -> URL:
    """The URL, for the role that both clusters know."""
    return make_url(url).set(username="app", password="app")


async def test_nodes_upgraded_behind_the_same_urls_heal_unless_pinned(
    two: tuple[Cluster, Cluster], caplog: pytest.LogCaptureFixture
) -> None:
    """A new system identifier everywhere is believed after a while; a pinned Router writes nowhere, ever."""
    one, other = two
    system = await one.primary.fetchval("SELECT system_identifier FROM pg_control_system()")
    urls = [as_app(one[name].url) for name in ("primary", "replica-1")]
    async with (
        Router(urls[0], urls[1:], policy=QUICK) as db,
        Router(urls[0], urls[1:], policy=QUICK, system=str(system)) as pinned,
    ):
        await well(db, "replica-1")
        await well(pinned, "replica-1")
        assert (await written(db), await written(pinned)) == ("one", "one")
        for name in ("replica-1", "primary"):
            await one.stop(name)
            one[name].proxy.target = other[name].server.address
        await wait_until(lambda: db.view.system not in {0, system % (1 << 64)}, what="the new cluster", timeout=30)
        await well(db, "replica-1")
        assert await written(db) == "other"
        await wait_until(lambda: pinned.view.primary is None, what="the pinned Router sees strangers")
        with pytest.raises(NoPrimary):
            await written(pinned)
        assert pinned.view.system == system
        for name in ("primary", "replica-1"):
            one[name].proxy.target = one[name].server.address
    assert await other.primary.fetchval("SELECT count(*) FROM made") == 1
    assert "cluster-changed" in logged(caplog)


@pytest.mark.parametrize("asked", [True, False])
async def test_a_new_connection_to_a_stranger_is_refused(
    two: tuple[Cluster, Cluster], asked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names lead elsewhere, and no probe has noticed: nothing is read or written there, unless nothing is asked."""
    if not asked:
        monkeypatch.setattr(Monitor, "leads_to", lambda *_: ANY_SERVER)
    one, other = two
    urls = [as_app(one[name].url) for name in ("primary", "replica-1")]
    async with Router(urls[0], urls[1:], policy=LONG) as db:
        await well(db, "replica-1")
        for name in ("primary", "replica-1"):
            one[name].proxy.target = other[name].server.address
        if asked:
            with pytest.raises(RoutingError):
                await written(db)
            with pytest.raises(RoutingError):
                await shown(db)
        else:
            assert (await shown(db), await written(db)) == ("other", "other")
    assert await other.primary.fetchval("SELECT count(*) FROM made") == (0 if asked else 1)


async def test_a_start_among_strangers_writes_nothing_there(
    cluster: Cluster, elsewhere: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    """Only a node of another environment answers: NoPrimary, until ours are back; then they are believed at once."""
    ours, foreign = cluster, elsewhere
    await prepared(ours, "ours")
    await prepared(foreign, "foreign")
    for name in ("primary", "replica-1"):
        await ours.cut(name)
    urls = {"replica-1": ours["replica-1"].url, "replica-2": foreign.primary.url}
    async with Router(ours.primary.url, urls, policy=QUICK) as db:
        with pytest.raises(NoPrimary, match="replica-2 may belong to another cluster"):
            await written(db)
        await ours.heal()
        await well(db, "replica-1")
        assert await written(db) == "ours"
        assert db.view.node("replica-2").standing == "rival-primary"
    assert await foreign.primary.fetchval("SELECT count(*) FROM made") == 0
    assert logged(caplog)[-2:] == ["cluster-unconfirmed", "cluster-changed"]


async def test_a_pin_of_another_cluster_is_named_by_the_refusal(cluster: Cluster) -> None:
    """Retrying never helps: reads and writes are refused by the name of the setting, and the doctor's remedy."""
    primary, *replicas = (node.url for node in cluster.nodes.values())
    async with Router(primary, replicas, policy=QUICK, system=42) as db:
        for maker in (db.read, db.write):
            with pytest.raises(NoPrimary, match=r"^system=42 names another cluster than that of") as refused:
                async with maker() as session:
                    await session.execute(text("SELECT 1"))
            assert str(refused.value).endswith(". Correct system= (LAGWISE_SYSTEM), or the URLs.")
        assert db.explain().error is not None


async def test_a_replica_alone_is_said_to_be_one(cluster: Cluster) -> None:
    """Its URL was given for the primary's: the refusal of a write says that it is in recovery, and what to give."""
    async with Router(cluster.replicas[0].url, policy=QUICK) as db:
        with pytest.raises(NoPrimary, match="no primary can be reached") as refused:
            await written(db)
    assert str(refused.value).endswith(
        "Retry when the failover is over. primary is configured as the primary, and is a replica (it is in recovery): "
        "where there is no failover, give the URL of the primary."
    )


async def test_a_start_beside_a_dead_primary_needs_a_pin_or_a_majority() -> None:
    """One of two answers, promoted: no write until the old primary is back, or at once with system=..."""
    async with Cluster(replicas=1) as cluster:
        await prepared(cluster, "ours")
        system = await cluster.primary.fetchval("SELECT system_identifier FROM pg_control_system()")
        await cluster.stop("primary")
        await cluster.promote("replica-1")
        urls = (cluster["primary"].url, {"replica-1": cluster["replica-1"].url})
        async with Router(*urls, policy=QUICK) as db, Router(*urls, policy=QUICK, system=system) as pinned:
            with pytest.raises(NoPrimary, match="pin the cluster"):
                await written(db)
            assert await written(pinned) == "ours"
            await cluster.start("primary")
            await wait_until(lambda: db.view.primary is not None, what="the old primary vouches for the new one")
            assert await written(db) == "ours"
            assert db.view.node("primary").standing == "rival-primary"


async def test_one_server_under_two_names(cluster: Cluster) -> None:
    """Development and CI: both URLs lead to one server; reads and writes are served, and no second primary is seen."""
    await prepared(cluster, "ours")
    async with Router(cluster.primary.url, [cluster.primary.direct_url], policy=QUICK) as db:
        assert await written(db) == "ours"
        async with db.read() as session:
            assert await session.scalar(text("SELECT count(*) FROM made")) == 1
            assert str(session.info["lagwise.route"]) == "primary; reason=no-replicas"
        assert db.view.node("replica-1").standing == "same-server"


async def test_a_reader_endpoint_that_moves_to_the_writer_and_back(cluster: Cluster) -> None:
    """As a cloud's does while there is no reader: a write session that is open goes on, and nothing fails."""
    await prepared(cluster, "ours")
    primary, replica = cluster["primary"], cluster["replica-1"]
    there = replica.proxy.target
    async with Router(primary.direct_url, {"reads": replica.url}, policy=QUICK) as db:
        await well(db, "reads")
        async with db.write.begin() as session:
            await session.execute(text("INSERT INTO made VALUES ('before')"))
            replica.proxy.target = primary.server.address
            await cluster.cut("replica-1")
            await cluster.heal()
            await wait_until(lambda: db.view.node("reads").standing == "same-server", what="the endpoint has moved")
            await session.execute(text("INSERT INTO made VALUES ('after')"))
        assert await written(db) == "ours"
        async with db.read() as reading:
            assert await reading.scalar(text("SELECT count(*) FROM made")) == 3
            assert reading.info["lagwise.route"].reason == "no-replicas"
        replica.proxy.target = there
        await cluster.cut("replica-1")
        await cluster.heal()
        await well(db, "reads")


SHADOWS = """
CREATE SCHEMA shadow;
CREATE FUNCTION shadow.pg_is_in_recovery() RETURNS bool LANGUAGE sql AS 'SELECT true';
CREATE FUNCTION shadow.pg_last_wal_replay_lsn() RETURNS pg_lsn LANGUAGE sql AS $$ SELECT '0/1'::pg_lsn $$;
CREATE FUNCTION shadow.pg_current_wal_insert_lsn() RETURNS pg_lsn LANGUAGE sql AS $$ SELECT '0/1'::pg_lsn $$;
CREATE FUNCTION shadow.pg_current_wal_flush_lsn() RETURNS pg_lsn LANGUAGE sql AS $$ SELECT '0/1'::pg_lsn $$;
CREATE FUNCTION shadow.pg_walfile_name(pg_lsn) RETURNS text LANGUAGE sql AS $$ SELECT '0000000900000000' $$;
CREATE FUNCTION shadow.pg_postmaster_start_time() RETURNS timestamptz LANGUAGE sql AS $$ SELECT 'epoch'::timestamptz $$;
CREATE FUNCTION shadow.current_setting(text) RETURNS text LANGUAGE sql AS $$ SELECT '7' $$;
CREATE FUNCTION shadow.substr(text, int, int) RETURNS text LANGUAGE sql AS $$ SELECT '00000009' $$;
CREATE FUNCTION shadow.txid_current() RETURNS int8 LANGUAGE sql AS $$ SELECT 1::int8 $$;
CREATE FUNCTION shadow.joined(text, text) RETURNS text LANGUAGE sql AS $$ SELECT 'x00000009' $$;
CREATE OPERATOR shadow.|| (LEFTARG = text, RIGHTARG = text, FUNCTION = shadow.joined);
CREATE TABLE shadow.pg_stat_wal_receiver (received_tli int);
INSERT INTO shadow.pg_stat_wal_receiver VALUES (9);
CREATE FUNCTION shadow.pg_control_system(OUT system_identifier int8) LANGUAGE sql AS $$ SELECT 9::int8 $$;
CREATE DOMAIN shadow.int4 AS pg_catalog.int4 CHECK (VALUE < 0);
CREATE ROLE shadowed SUPERUSER LOGIN PASSWORD 'app';
ALTER ROLE shadowed SET search_path = shadow, pg_catalog, public;
"""


@pytest.fixture
async def shadowed(cluster: Cluster) -> AsyncIterator[Cluster]:
    """A cluster with a role for which the shadows come first."""
    await cluster.primary.execute(SHADOWS)
    await cluster.caught_up()
    yield cluster
    await cluster.primary.execute("DROP ROLE shadowed; DROP SCHEMA shadow CASCADE")


async def test_a_search_path_that_shadows_the_servers_functions_misleads_nothing(shadowed: Cluster) -> None:
    """The application's own pg_is_in_recovery() or || come first for its role: the monitor asks the server's."""
    cluster = shadowed
    urls = [make_url(cluster[name].url).set(username="shadowed", password="app") for name in ("primary", "replica-1")]
    async with Router(urls[0], urls[1:], policy=QUICK) as db:
        await well(db, "replica-1")
        readings = [node.reading for node in db.view.nodes]
        assert [str(each.role) for each in readings if each] == ["primary", "replica"]
        assert {each.timeline for each in readings if each} == {1}
        system = await cluster.primary.fetchval("SELECT system_identifier FROM pg_control_system()")
        assert {each.system for each in readings if each} == {system}
        assert len({each.server for each in readings if each}) == 2
