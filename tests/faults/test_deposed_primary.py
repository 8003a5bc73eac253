"""A process that sees the deposed primary alone: no client of the promoted node is served there."""

import time
from dataclasses import replace

import pytest
from sqlalchemy import text

from lagwise import Causality, CausalToken, NoPrimary, Policy, Router, RoutingError
from lagwise.testing import Cluster, wait_until
from tests.kit.routers import in_rotation, router

POLICY = Policy(max_lag=2, sticky_window=2, probe_interval=0.2, probe_timeout=5)
COUNT = text("SELECT count(*) FROM item")


def aged(token: CausalToken, seconds: float) -> CausalToken:
    """The token as if it had been made so long ago."""
    return CausalToken.of([replace(each, issued_at=int(time.time() - seconds)) for each in token.positions])


async def test_the_deposed_primary_serves_no_client_of_the_promoted_one(doomed: Cluster) -> None:
    """Not a session that is open, not when the sticky window is long over; only what no cookie brings is given up."""
    async with router(doomed, POLICY) as apart:
        await in_rotation(apart, "replica-1", "replica-2")
        await doomed.cut("replica-1")
        await wait_until(lambda: apart.view.node("replica-1").reading is None, what="it has lost sight of replica-1")
        await doomed.promote("replica-1")
        direct = {name: doomed[name].direct_url for name in ("replica-1", "replica-2")}
        async with Router(doomed["primary"].direct_url, direct, policy=POLICY) as other:
            await wait_until(lambda: other.view.primary and other.view.primary.name == "replica-1", what="promoted")
            with Causality() as client:
                async with apart.read(primary=True) as session:
                    await session.scalar(COUNT)
                    with Causality() as elsewhere:  # its answer reaches the client: `propagate`, or a store
                        async with other.write.begin() as writing:
                            await writing.execute(text("INSERT INTO item (name) VALUES ('on the promoted node')"))
                    client.learn(elsewhere.token.positions)
                    with pytest.raises(RoutingError):
                        await session.scalar(COUNT)
        for seconds in (0, 120, 1800):
            with Causality(aged(client.token, seconds)):
                for opening in (apart.read, apart.write):
                    with pytest.raises(NoPrimary):
                        async with opening() as session:
                            await session.scalar(COUNT)
        with Causality(aged(client.token, 3700)):
            async with apart.read() as session:
                await session.scalar(COUNT)
