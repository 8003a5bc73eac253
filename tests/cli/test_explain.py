"""`lagwise explain`: against real nodes, from the environment and by URL; what a mistake says."""

import asyncio
import os
import sys

import pytest
from sqlalchemy import make_url, text
from typer.testing import CliRunner

from lagwise import Causality, Router
from lagwise._client.signature import Seal
from lagwise.cli import app
from lagwise.testing import Cluster
from tests.kit.routers import stand_still

SECRET, PASSWORD = "a secret for explain", "hunter2-planted"


async def ran(*arguments: str, **variables: str) -> tuple[int | None, str, str]:
    """Exit status, standard output and error of `lagwise explain`."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("LAGWISE_")}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "error", "-m", "lagwise", "explain", *arguments),
        env={**own, **variables, "LAGWISE_PROBE_TIMEOUT": "5"},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


def nodes(cluster: Cluster) -> dict[str, str]:
    """The variables of a cluster."""
    return {
        "LAGWISE_PRIMARY": cluster.primary.url,
        "LAGWISE_REPLICAS": ",".join(f"near-{n}={node.url}" for n, node in enumerate(cluster.replicas, 1)),
        "LAGWISE_SECRET": SECRET,
    }


async def test_where_a_read_would_go(cluster: Cluster) -> None:
    """Without a token a replica serves; with that of a client whose write no replica has, the primary does."""
    await cluster.caught_up()
    status, out, err = await ran(**nodes(cluster))
    assert (status, err) == (0, "")
    assert out.startswith("a read would go to near-")
    assert "no token: this client has seen nothing" in out
    await stand_still(cluster)
    async with Router(cluster.primary.url) as db:
        with Causality() as seen:
            async with db.write.begin() as session:
                await session.execute(text("INSERT INTO item (name) VALUES ('of explain')"))
    status, out, err = await ran(Seal(SECRET).sealed(seen.token), **nodes(cluster))
    assert (status, err) == (0, "")
    assert out.startswith("a read would go to primary (")
    assert "the token:\n  " in out
    assert str(seen.token.positions[0].system) in out
    for hidden in (cluster.primary.url, str(make_url(cluster.primary.url).port), "127.0.0.1", SECRET):
        assert hidden not in out


async def test_a_token_as_it_was_copied(cluster: Cluster) -> None:
    """The header's list and the cookie with its name tell what the token alone does."""
    async with Router(cluster.primary.url) as db:
        with Causality() as seen:
            async with db.write.begin() as session:
                await session.execute(text("INSERT INTO item (name) VALUES ('of explain')"))
        sealed = Seal(SECRET).sealed(seen.token)
        alone = str(db.explain(sealed, secret=SECRET)).partition("the token:")[2].partition(", issued")[0]
        assert str(seen.token.positions[0].system) in alone
        for given in (f"{sealed}, {sealed}", f"lagwise={sealed}"):
            assert alone in str(db.explain(given, secret=SECRET))


async def test_nodes_by_url(cluster: Cluster) -> None:
    """`--node` in place of the environment, the primary first; a write goes there."""
    status, out, err = await ran("--write", "--node", cluster.primary.url, "--node", cluster.replicas[0].url)
    assert (status, err) == (0, "")
    assert out.splitlines()[0] == "a write would go to primary (write): it may write"
    assert "\n  replica-1: " in out


async def test_what_would_be_refused_is_status_1() -> None:
    """Without a node that answers it says so, by the kind of failure, and no password."""
    status, out, err = await ran("--write", "--node", f"postgresql://app:{PASSWORD}@127.0.0.1:1/shop")
    assert (status, err) == (1, "")
    assert out.startswith("a write would raise NoPrimary (write): ")
    assert (PASSWORD in out, "127.0.0.1" in out) == (False, False)


URL = f"postgresql://app:{PASSWORD}@127.0.0.1:1/shop"
AT_NODE = {"LAGWISE_PRIMARY": URL}


@pytest.mark.parametrize(
    ("arguments", "variables", "words"),
    [
        ([], {}, "LAGWISE_PRIMARY is not set"),
        (["--node", PASSWORD], {}, "URL number 1 is no database URL"),
        (["--node", f"foo://u:{PASSWORD}@h/d"], {}, "URL number 1 names another driver than asyncpg"),
        (["--node", f"postgresql://u:{PASSWORD}@h:99999/d"], {}, "URL number 1 has a port that is not between"),
        ([], {**AT_NODE, "LAGWISE_MAX_LAGG": "1"}, "did you mean LAGWISE_MAX_LAG?"),
        (["x." + "y" * 90], {**AT_NODE, "LAGWISE_SECRET": "s"}, "not signed by a secret of this"),
        (["x." + "y" * 90], AT_NODE, "LAGWISE_SECRET is not set"),
        (["no token"], AT_NODE, "not a causal token"),
    ],
)
def test_a_mistake_in_explaining_is_one_line(
    arguments: list[str], variables: dict[str, str], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No nodes, a bad URL, a forged token, a token that is none: one line, status 2, nothing secret."""
    for name in [name for name in os.environ if name.startswith("LAGWISE_")]:
        monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    result = CliRunner().invoke(app, ["explain", *arguments])
    assert (result.exit_code, result.stdout, words in result.stderr) == (2, "", True), result.stderr
    assert (result.stderr.count("\n"), result.stderr[:9]) == (1, "lagwise: ")
    assert (PASSWORD in result.stderr, "127.0.0.1" in result.stderr) == (False, False)
