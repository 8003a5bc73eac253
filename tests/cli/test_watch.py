"""`lagwise watch`: over an application and over nodes, in a terminal and in a pipe; its end; what it never prints."""

import asyncio
import io
import json
import os
import pty
import re
import signal
import sys
import termios
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import httpx
import pytest
from fastapi import FastAPI, Response
from rich.console import Console
from typer.testing import CliRunner

from lagwise import Policy
from lagwise._decide.view import Standing
from lagwise.cli import app
from lagwise.cli.opening import clean
from lagwise.cli.watch.screen import plain, screen
from lagwise.cli.watch.source import LARGEST, Application, Snapshot, Unanswered
from lagwise.fastapi import health_router, lifespan
from lagwise.health import NodeHealth, PoolHealth
from lagwise.testing import Cluster, wait_until
from tests.kit.routers import router
from tests.kit.serving import served

PASSWORD = "hunter2-planted"
EVIL = "\x1b]0;owned\x07[red]\u202e"
WATCH = (sys.executable, "-W", "error", "-m", "lagwise", "watch")


def bare(**variables: str) -> dict[str, str]:
    """This process's environment without variables of lagwise, and with these."""
    return {name: value for name, value in os.environ.items() if not name.startswith("LAGWISE_")} | variables


@asynccontextmanager
async def watching(*arguments: str, **variables: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """The command with pipes."""
    process = await asyncio.create_subprocess_exec(
        *(*WATCH, *arguments),
        env=bare(**variables),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


def node(**changes: object) -> NodeHealth:
    """A replica in rotation."""
    known: dict[str, object] = {
        "status": "pass",
        "standing": Standing.IN_ROTATION,
        "in_rotation": True,
        "role": "replica",
        "timeline": 1,
        "lsn": "0/1234ABCD",
        "staleness": 0.25,
        "lag_bytes": 128,
        "reading_age": 0.1,
        "weight": 1.0,
        "drained": False,
        "error": None,
    }
    return NodeHealth.model_validate(known | changes)


def pool(**changes: object) -> PoolHealth:
    """A pool of twenty, with five connections in use."""
    known: dict[str, object] = {
        "size": 20,
        "checked_in": 1,
        "checked_out": 5,
        "overflow": 0,
        "capacity": 20,
        "utilisation": 0.25,
        "waits": 3,
        "timeouts": 2,
        "opened": 9,
        "opened_per_second": 0.5,
        "longest_held": [1.5],
    }
    return PoolHealth.model_validate(known | changes)


async def test_an_application_in_a_pipe(cluster: Cluster) -> None:
    """One snapshot at each interval, in plain lines; Ctrl-C ends it with status 0 and no traceback."""
    db = router(cluster, Policy(probe_timeout=5))
    api = FastAPI(lifespan=lifespan(db))
    api.include_router(health_router(db), prefix="/health")
    async with served(api) as url, watching(f"{url}/health", "--interval", "0.2") as process:
        assert process.stdout is not None
        said = b""
        async with asyncio.timeout(30):
            while said.count(b"primary: primary") < 2:
                said += await process.stdout.readline()
        process.send_signal(signal.SIGINT)
        rest, err = await process.communicate()
        assert (process.returncode, err) == (0, b"")
        text = (said + rest).decode()
        assert "replica-1: in-rotation, " in text
        assert "\x1b" not in text
        assert "127.0.0.1" not in text


async def test_nodes_of_the_environment_once(cluster: Cluster) -> None:
    """`--once` without a URL reads the nodes themselves; status 0 while they serve."""
    names = ",".join(f"near-{n}={node.url}" for n, node in enumerate(cluster.replicas, 1))
    env = {"LAGWISE_PRIMARY": cluster.primary.url, "LAGWISE_REPLICAS": names, "LAGWISE_PROBE_TIMEOUT": "5"}
    async with watching("--once", **env) as process:
        out, err = await process.communicate()
        assert (process.returncode, err) == (0, b"")
        lines = out.decode().splitlines()
        assert [line.partition(":")[0] for line in lines if ": " in line] == ["primary", "near-1", "near-2"]
        assert "127.0.0.1" not in out.decode()


async def test_in_a_terminal_it_is_live_and_restores_it(cluster: Cluster) -> None:
    """The picture is drawn again in place, and after Ctrl-C the cursor is back and the terminal's mode as before."""
    db = router(cluster, Policy(probe_timeout=5))
    api = FastAPI(lifespan=lifespan(db))
    api.include_router(health_router(db), prefix="/health")
    async with served(api) as url:
        master, slave = pty.openpty()
        before = termios.tcgetattr(slave)
        said = bytearray()
        asyncio.get_running_loop().add_reader(master, lambda: said.extend(os.read(master, 65536)))
        try:
            process = await asyncio.create_subprocess_exec(
                *(*WATCH, f"{url}/health", "--interval", "0.2"),
                env=bare(TERM="xterm-256color", COLUMNS="100", LINES="40"),
                stdin=slave,
                stdout=slave,
                stderr=slave,
            )
            await wait_until(lambda: said.count(b"replica-2") >= 2, timeout=30, what="it is drawn twice")
            process.send_signal(signal.SIGINT)
            assert await process.wait() == 0
            await wait_until(lambda: b"\x1b[?25h" in said, what="the cursor is shown")
        finally:
            asyncio.get_running_loop().remove_reader(master)
            after = termios.tcgetattr(slave)
            os.close(master)
            os.close(slave)
        assert (b"Traceback" in said, b"\x1b[?25l" in said, after) == (False, True, before)


async def test_an_application_that_stops_is_told_with_the_age(cluster: Cluster) -> None:
    """When it answers no more, what was known is shown on, with its age; the address and the error's text are not."""
    db = router(cluster, Policy(probe_timeout=5))
    api = FastAPI(lifespan=lifespan(db))
    api.include_router(health_router(db), prefix="/health")
    async with served(api) as url:
        serving = watching(f"{url}/health", "--interval", "0.1")
        process = await serving.__aenter__()
        assert process.stdout is not None
        async with asyncio.timeout(30):
            while b"replica-2" not in await process.stdout.readline():
                pass
    try:
        said = b""
        async with asyncio.timeout(30):
            while b"replica-2" not in said.partition(b"the data is ")[2]:
                said += await process.stdout.readline()
        assert re.search(rb"no answer \((Connect|Read)Error\), the data is 0", said)
        assert b"127.0.0.1" not in said
    finally:
        await serving.__aexit__(None, None, None)


async def test_nothing_there_is_status_1() -> None:
    """`--once` at a closed port: one line, no address, status 1."""
    async with watching(f"http://user:{PASSWORD}@127.0.0.1:1/health", "--once") as process:
        out, err = await process.communicate()
        assert (process.returncode, out, err) == (1, b"no answer (ConnectError)\n\n", b"")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["http://one/health", "http://two/health"], "one application's URL"),
        ([f"http://{PASSWORD}:port/health"], "this is no URL"),
        ([], "LAGWISE_PRIMARY is not set"),
        (["http://h:999999/"], "this is no URL"),
        (["HTTP://one/health", "http://two/health"], "one application's URL"),
        ([PASSWORD], "URL number 1 is no database URL"),
        ([f"{PASSWORD}:8022/health"], "name=URL; or http://... for the health URL of an application"),
        ([f"one={PASSWORD}:8022/health", PASSWORD], "or http://... for the health URL of an application"),
        ([f"foo://u:{PASSWORD}@h/d"], "URL number 1 names another driver than asyncpg"),
    ],
)
def test_a_mistake_in_watching_is_one_line(arguments: list[str], words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two applications, a bad port, no nodes: status 2, and what was given is not repeated."""
    for name in [name for name in os.environ if name.startswith("LAGWISE_")]:
        monkeypatch.delenv(name)
    result = CliRunner().invoke(app, ["watch", *arguments, "--once"])
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert (words in result.stderr, PASSWORD in result.stderr) == (True, False)


def answering(answers: dict[str, bytes | int | Callable[[], Response]]) -> FastAPI:
    """An application whose paths answer this."""
    api = FastAPI()

    @api.get("/{path:path}")
    async def any_path(path: str) -> Response:
        found = answers.get(path, 404)
        if isinstance(found, int):
            return Response(status_code=found)
        return Response(found, media_type="application/json") if isinstance(found, bytes) else found()

    return api


async def asked(answers: dict[str, bytes | int | Callable[[], Response]]) -> Snapshot | str:
    """What `watch` makes of these answers: a snapshot, or why there is none."""
    transport = httpx.ASGITransport(app=answering(answers))
    async with httpx.AsyncClient(transport=transport) as client:
        try:
            return await Application(client, "http://test/health/").snapshot()
        except Unanswered as error:
            return str(error)


NODES = json.dumps({"status": "warn", "nodes": {"one": node().model_dump(mode="json")}}).encode()
POOLS = json.dumps({"status": "pass", "pools": {"one": {"reading": pool().model_dump(mode="json")}}}).encode()


async def test_the_status_page_is_used_where_it_is() -> None:
    """The prefix's own JSON has everything in one answer; without it, or with something else there, nodes and pools."""
    whole = {
        "status": "fail",
        "summary": "Nothing is served.",
        "notes": ["look here"],
        "routes": {"seconds": 60, "by_reason": {"fresh": 7}, "refused": {}},
        **{key: json.loads(text)[key] for key, text in (("nodes", NODES), ("pools", POOLS))},
    }
    found = await asked({"health": json.dumps(whole).encode()})
    assert isinstance(found, Snapshot)
    assert (found.summary, [*found.nodes], [*found.pools]) == ("Nothing is served.", ["one"], ["one"])
    assert "the last 60 s: 7 fresh" in "\n".join(plain(found, "", 0))
    for there in (404, b"<html>", b'{"hello": 1}'):
        parts = await asked({"health": there, "health/nodes": NODES, "health/pools": POOLS})
        assert isinstance(parts, Snapshot)
        assert (parts.status, parts.summary, [*parts.pools["one"]]) == ("warn", "", ["reading"])


async def test_what_is_no_health_is_told() -> None:
    """Another application, a redirect, an error: each is a short line."""
    assert await asked({}) == "status 404: is this the URL of its health?"
    assert await asked({"health/nodes": 307}) == "status 307: is this the URL of its health?"
    assert "not understood" in str(await asked({"health/nodes": b'{"nodes": "none"}'}))
    assert "not understood" in str(await asked({"health/nodes": b"[" * 100_000}))


async def test_an_answer_is_bounded() -> None:
    """One byte above the bound is refused, and what is at the bound is read."""
    padded = NODES + b" " * (LARGEST - len(NODES))
    found = await asked({"health/nodes": padded, "health/pools": POOLS})
    assert isinstance(found, Snapshot)
    assert await asked({"health/nodes": padded + b" "}) == f"the answer is above {LARGEST} bytes"


async def test_an_answer_that_never_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that trickles is given up after the time-out."""
    from starlette.responses import StreamingResponse

    from lagwise.cli.watch import source

    async def drops() -> AsyncIterator[bytes]:
        while True:
            yield b" "
            await asyncio.sleep(0.01)

    api = FastAPI()
    api.get("/health")(lambda: StreamingResponse(drops()))
    monkeypatch.setattr(source, "TIMEOUT", 0.2)
    async with served(api) as url, httpx.AsyncClient(trust_env=False) as client:
        with pytest.raises(Unanswered, match=r"^no answer within 0\.2 s$"):
            await Application(client, f"{url}/health").snapshot()


@pytest.mark.parametrize("width", [20, 40, 60, 80, 100, 200])
def test_it_fits_every_terminal(width: int) -> None:
    """No line is wider than the terminal; from 40 columns on every standing is whole."""
    found = Snapshot(
        status="warn",
        summary="Reads and writes are served, and something needs a look.",
        nodes={"primary": node(standing=Standing.PRIMARY), "r" * 100: node(standing=Standing.OTHER_TIMELINE)},
        pools={"primary": {"reading": pool(), "writing": pool(utilisation=1.0, checked_out=20)}},
    )
    console = Console(width=width, file=io.StringIO(), record=True)
    console.print(screen(found, "no answer", 7.5, width))
    shown = console.export_text()
    assert max(map(len, shown.splitlines())) <= width
    assert "no answer" in shown
    if width >= 40:
        assert [words for words in ("primary", "other-timeline", "5 of 20", "20 of 20") if words not in shown] == []


def test_a_server_cannot_write_to_the_terminal() -> None:
    """Escape sequences, markup and bidirectional marks in names, notes and words are shown, and not obeyed."""
    found = Snapshot(
        status="fail",
        summary=EVIL,
        notes=[EVIL],
        nodes={EVIL: node(error=EVIL, lsn=EVIL)},
        pools={EVIL: {EVIL: pool()}},
    )
    console = Console(width=200, force_terminal=True, color_system=None, file=io.StringIO())
    console.print(screen(found, EVIL, 0, 200))
    assert isinstance(console.file, io.StringIO)
    for text in (console.file.getvalue(), "\n".join(plain(found, EVIL, 0))):
        assert ("\x1b" in text, "\x07" in text, "\u202e" in text) == (False, False, False)
        assert r"\x1b]0;owned\x07[red]\u202e" in text


def test_many_nodes_are_cut() -> None:
    """A server that names thousands of nodes fills no screen: 64 are shown, and the count of the rest."""
    found = Snapshot(status="pass", nodes={f"node-{n}": node() for n in range(1000)})
    console = Console(width=80, file=io.StringIO(), record=True)
    console.print(screen(found, "", 0, 80))
    assert "and 936 more" in console.export_text()
    assert len([*plain(found, "", 0)]) == 65


def test_cleaned_text_is_bounded() -> None:
    """What is shown is as long as it may be, with a mark where it was cut."""
    assert (clean("x" * 60), clean("x" * 61)) == ("x" * 60, "x" * 59 + "…")
    assert len(clean("\x1b" * 61)) == 60
