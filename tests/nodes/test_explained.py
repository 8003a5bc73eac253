"""`db.explain()` on real nodes: where it says that a read would go, the read goes."""

import pytest
from sqlalchemy import make_url, text

from lagwise import Causality, InvalidToken, NotOpen, Policy, Reason, Router
from lagwise._client.signature import Seal
from lagwise.testing import Cluster
from tests.kit.routers import both_in_rotation, in_rotation, patient, router, stand_still

INSERT = text("INSERT INTO item (name) VALUES ('explained')")


async def went(db: Router, **options: float | bool) -> str | None:
    """The node that a read with these options is served by."""
    async with db.read(**options) as session:  # type: ignore[arg-type]
        await session.execute(text("SELECT 1"))
        node: str | None = session.info["lagwise.route"].node
        return node


async def test_the_read_goes_where_it_says(still: Router, cluster: Cluster) -> None:
    """With replay paused a client that has written is told of the primary and of the bytes; a stranger of replicas."""
    before = still.explain()
    assert (before.route.on_replica, before.error, before.token) == (True, None, ())
    assert await went(still) in {node.name for node in before.nodes if node.serves}
    with Causality() as seen:
        async with still.write.begin() as session:
            await session.execute(INSERT)
        here = still.explain()  # what the causality around has seen
        assert (here.route.node, here.route.reason) == ("primary", Reason.NONE_CAUGHT_UP)
        assert await went(still) == "primary"
    for found in (here, still.explain(seen.token), still.explain(str(seen.token))):
        lacks = [node.lacks for node in found.nodes if node.name.startswith("replica")]
        assert all(count is not None and count > 0 for count in lacks)
        assert f"lacks {lacks[0]} bytes of what this client has seen" in str(found)
        assert (found.token[0].ours, found.token[0].in_doubt, found.token[0].expired) == (True, False, False)
    assert still.explain().route.on_replica
    assert still.explain(seen.token, write=True).route.reason is Reason.WRITE
    assert still.explain(primary=True).route.reason is Reason.STRONG


async def test_in_shadow_mode_every_read_is_held_back(db: Router) -> None:
    """With offload=0 it tells of the primary, and why; with a share, of a client that is let in."""
    await both_in_rotation(db)
    db.offload = 0
    assert (db.explain().route.node, db.explain().route.reason) == ("primary", Reason.HELD_BACK)
    assert await went(db) == "primary"
    assert db.explain(primary=True).route.reason is Reason.STRONG
    db.offload = 0.5
    assert db.explain().route.on_replica


async def test_what_is_drained_or_gone_is_told(doomed: Cluster) -> None:
    """A drained replica, one that is down, and where reads go then; no address and no password is in it."""
    async with router(doomed, Policy(probe_timeout=2, probe_interval=0.1)) as db:
        await both_in_rotation(db)
        db.drain("replica-1")
        await doomed.stop(doomed.replicas[1])
        await in_rotation(db)
        found = db.explain()
        assert (found.route.node, found.route.reason) == ("primary", Reason.NONE_IN_ROTATION)
        words = {node.name: node.why for node in found.nodes}
        assert words["replica-1"] == "drained"
        assert words["replica-2"].startswith("unreachable (")
        hidden = [
            part for node in doomed.nodes.values() for part in (node.url, str(make_url(node.url).port), "127.0.0.1")
        ]
        assert [part for part in hidden if part in str(found)] == []


async def test_a_signed_token_needs_its_secret(db: Router) -> None:
    """The cookie's value is verified as the middleware does it; a forgery is named as one."""
    with Causality() as seen:
        async with db.write.begin() as session:
            await session.execute(INSERT)
    signed = Seal("the secret").sealed(seen.token)
    assert db.explain(signed, secret=["new", "the secret"]).token[0].position in seen.token.positions
    for secret, words in (None, "it takes the secret"), ("another", "not signed by a secret of this application"):
        with pytest.raises(InvalidToken, match=words) as caught:
            db.explain(signed, secret=secret)
        assert signed not in str(caught.value)


async def test_it_needs_an_open_router(cluster: Cluster) -> None:
    """Closed it is `NotOpen`; options that make no sense are `ValueError` as in a session."""
    db = patient(cluster)
    with pytest.raises(NotOpen):
        db.explain()
    with pytest.raises(ValueError, match="max_staleness must be at least 0"):
        db.explain(max_staleness=-1)
    with pytest.raises(ValueError, match=r"are for db\.read"):
        db.explain(write=True, primary=True)


async def test_nothing_is_asked_of_any_node(cluster: Cluster) -> None:
    """It is answered from memory, also when no node can answer."""
    async with patient(cluster) as db:
        await both_in_rotation(db)
        await stand_still(cluster)
        opened = [pool.opened for pools in db.pools.values() for pool in pools.tallies.values()]
        for _ in range(20):
            db.explain()
        assert [pool.opened for pools in db.pools.values() for pool in pools.tallies.values()] == opened
