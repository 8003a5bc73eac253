"""`lagwise demo`: what it shows, how it ends, and that it leaves nothing behind."""

import asyncio
import io
import json
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from lagwise._decide.view import Standing
from lagwise.cli import app
from lagwise.cli.demo import report
from lagwise.cli.demo.traffic import Score, quantile
from lagwise.health import NodeHealth, Nodes
from lagwise.testing import wait_until
from lagwise.testing.processes import alive

DEMO = (sys.executable, "-W", "error", "-m", "lagwise", "demo")


@pytest.fixture
def place() -> Iterator[Path]:
    """Where the servers of one test live: a directory that their own account can reach, unlike pytest's."""
    with tempfile.TemporaryDirectory(prefix="lagwise-test-demo-") as name:
        path = Path(name)
        path.chmod(0o755)
        yield path


@asynccontextmanager
async def running(*command: str, place: Path, **env: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(place), **env},
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


def left_in(place: Path) -> list[str]:
    """What is in the directory, but for the programs that are copied once where root's own are out of reach."""
    return [path.name for path in place.iterdir() if not path.name.startswith("lagwise-pg-")]


async def test_ctrl_c_ends_it_in_the_middle(place: Path) -> None:
    """Ctrl-C while clients are at work: status 130, no traceback, no PostgreSQL process, no directory."""
    async with running(*DEMO, "--seconds", "60", place=place) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        async with asyncio.timeout(60):
            while (await process.stdout.readline()) != b"naive split ...\n":
                assert not process.stdout.at_eof()
        servers = [int(path.read_text().split()[0]) for path in place.glob("*/*/postmaster.pid")]
        assert [alive(pid) for pid in servers] == [True, True, True]
        process.send_signal(signal.SIGINT)
        err = await process.stderr.read()
        assert (await process.wait(), err.decode()) == (130, "Stopped; nothing is left behind.\n")
        assert [alive(pid) for pid in servers] == [False, False, False]
    assert left_in(place) == []


async def test_ctrl_c_ends_it_while_servers_start(place: Path) -> None:
    """Ctrl-C before anything is up: status 130, no traceback, and what was being started is gone."""
    async with running(*DEMO, place=place) as process:
        # As soon as there is a data directory, some program of PostgreSQL's is at work in it.
        await wait_until(lambda: list(place.glob("lagwise-*/primary")), timeout=60)
        process.send_signal(signal.SIGINT)
        _, err = await process.communicate()
        assert (process.returncode, err.decode()) == (130, "Stopped; nothing is left behind.\n")
    assert left_in(place) == []


async def test_serve_keeps_it_up_for_the_browser(place: Path) -> None:
    """`--serve` goes on after the verdict: the page, the API and health answer, until it is told to stop."""
    import httpx

    async with running(*DEMO, "--seconds", "0.5", "--clients", "2", "--json", "--serve", place=place) as process:
        assert process.stdout is not None
        async with asyncio.timeout(60):
            url = json.loads(await process.stdout.readline())["serving"]
        async with httpx.AsyncClient(base_url=url, trust_env=False) as http:
            assert "<title>lagwise demo</title>" in (await http.get("/")).text
            made = await http.post("/items", json={"text": "milk"})
            read = await http.get(f"/items/{made.json()['id']}")
            assert (read.status_code, read.json()["text"]) == (200, "milk")
            assert set((await http.get("/health/nodes")).json()["nodes"]) == {"primary", "replica-1", "replica-2"}
        process.terminate()
        assert await process.wait() == 128 + signal.SIGTERM
    assert left_in(place) == []


async def test_the_demo_shows_the_bug_and_the_fix(place: Path) -> None:
    """The naive split misses its clients' writes, lagwise misses none and still reads from replicas; status 0."""
    for seconds in ("1.5", "10"):  # a busy machine gets few requests done in one and a half
        async with running(*DEMO, "--seconds", seconds, "--json", place=place) as process:
            out, err = await process.communicate()
        found: dict[str, Any] = json.loads(out)
        if found["naive"]["stale"] and found["lagwise"]["own_reads"]:
            break
    assert (process.returncode, err.decode(), left_in(place)) == (0, "", []), found
    naive, lagwise = found["naive"], found["lagwise"]
    assert naive["stale"] > 0
    assert (lagwise["stale"], lagwise["errors"], found["passed"]) == (0, 0, True)
    assert lagwise["own_reads"] > 0
    assert (naive["replica_share"], lagwise["replica_share"] > 0) == (1.0, True)
    assert {name: node["role"] for name, node in found["nodes"].items()} == {
        "primary": "primary",
        "replica-1": "replica",
        "replica-2": "replica",
    }
    assert sum(lagwise["reads_by_node"].values()) == lagwise["reads"]


def test_a_missing_extra_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without FastAPI it says what to install, in one line, with status 2."""
    monkeypatch.setitem(sys.modules, "fastapi", None)
    result = CliRunner().invoke(app, ["demo"])
    assert result.stderr == 'lagwise: fastapi missing: pip install "lagwise[cli,fastapi,embedded]"\n'
    assert (result.exit_code, result.stdout) == (2, "")


def test_a_missing_postgresql_is_one_line(monkeypatch: pytest.MonkeyPatch, place: Path) -> None:
    """Without a PostgreSQL to run it says what to do, in one line, with status 2."""
    monkeypatch.setenv("LAGWISE_PG_BIN", str(place))
    result = CliRunner().invoke(app, ["demo", "--json"])
    assert (result.exit_code, result.stdout, len(result.stderr.splitlines())) == (2, "", 1)
    assert result.stderr.startswith("lagwise: LAGWISE_PG_BIN=")


@pytest.mark.parametrize(
    ("naive", "lagwise", "passed", "words"),
    [
        (Score(stale=5, own_reads=9), Score(own_reads=9), True, "missed 5 of 9 own items; lagwise missed none of 9"),
        (Score(stale=5, own_reads=9), Score(stale=1, own_reads=9), False, "lagwise missed 1 of 9 own items"),
        (Score(stale=5, own_reads=9), Score(own_reads=9, errors=1), False, "1 requests failed through lagwise"),
        (Score(own_reads=9), Score(own_reads=9), False, "The naive split missed nothing"),
        (Score(stale=5, own_reads=9), Score(), False, "No client read back its own item"),
    ],
)
def test_the_verdict_can_be_no(naive: Score, lagwise: Score, passed: bool, words: str) -> None:
    """It passes only when the naive split was stale and lagwise, having been asked, was not."""
    ruling = report.verdict(naive, lagwise)
    assert (ruling.passed, words in ruling.words) == (passed, True)


def test_the_tables_fit_a_terminal() -> None:
    """80 columns hold both tables whole: no cell is cut, however far the numbers get."""
    tally = Score(99999, 99999, 99999, 99999, 99999, 99999, read_times=[9.9999])
    node = NodeHealth(
        status="warn",
        standing=Standing.OTHER_TIMELINE,
        in_rotation=False,
        role="replica",
        timeline=1,
        lsn="0/1234ABCD",
        staleness=12.34,
        lag_bytes=0,
        reading_age=0.1,
        weight=1.0,
        drained=False,
        error=None,
    )
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(report.tables(tally, tally, Nodes(status="warn", nodes={"replica-1": node}), "lagwise[embedded]"))
    shown = console.export_text()
    assert "…" not in shown
    assert all(word in shown for word in ("99999 of 99999", "other-timeline", "0/1234ABCD", "12.34 s", "9999.9 ms"))
    assert "lagwise[embedded]" in shown


def test_a_quantile_is_a_time_that_was_measured() -> None:
    """The median of two is the second, not their mean; of none it is 0."""
    assert [quantile([], 0.5), quantile([2.0, 1.0], 0.5), quantile([2.0, 1.0], 1.0)] == [0.0, 2.0, 2.0]
