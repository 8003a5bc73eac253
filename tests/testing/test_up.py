"""``lagwise cluster up`` prints what a developer pastes, and ends without a trace."""

import asyncio
import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg  # type: ignore[import-untyped]
import pytest

import lagwise.__main__
from lagwise.cli import cluster as cluster_module
from lagwise.testing import wait_until
from lagwise.testing.processes import alive


@asynccontextmanager
async def up(spool: Path, *options: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """The command, running."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-W", "error", "-m", "lagwise", "cluster", "up", *options,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        env={**os.environ, "TMPDIR": str(spool), "COLUMNS": "60"},
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def servers(spool: Path) -> list[int]:
    told = [path.read_text().split() for path in spool.glob("*/*/postmaster.pid")]
    return [int(words[0]) for words in told if words]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_json_line_then_a_clean_end(spool: Path, number: signal.Signals) -> None:
    """One line of JSON with URLs that work; a signal ends it with status 0, no server, no file and no word."""
    async with up(spool, "--replicas", "1", "--apply-delay", "60", "--json") as process:
        assert process.stdout is not None
        told = json.loads(await process.stdout.readline())
        assert [(node["name"], node["role"]) for node in told["nodes"]] == [
            ("primary", "primary"),
            ("replica-1", "replica"),
        ]
        connection = await asyncpg.connect(told["nodes"][1]["url"].replace("+asyncpg", ""))
        assert await connection.fetchval("SHOW recovery_min_apply_delay") == "1min"
        assert (await connection.fetchval("SHOW server_version")).split()[0] == told["version"]
        await connection.close()
        pids = servers(spool)
        assert len(pids) == 2
        # As a terminal does it: the whole process group gets it.
        os.killpg(process.pid, number)
        assert await asyncio.wait_for(process.communicate(), 20) == (b"", b"")
        assert process.returncode == 0
        assert [pid for pid in pids if alive(pid)] == []
        assert list(spool.iterdir()) == []


async def test_ctrl_c_while_starting_leaves_nothing(spool: Path) -> None:
    """Impatience is fine: two Ctrl-C while the servers start end it cleanly, too."""
    async with up(spool) as process:
        pids = await wait_until(lambda: servers(spool), what="it is starting")
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGINT)
        output, errors = await asyncio.wait_for(process.communicate(), 20)
        assert (output, process.returncode) == (b"", 0)
        assert errors.decode().splitlines() == [
            "Starting a primary and 2 replicas ...",
            "Stopping ...",
            "Stopped; nothing is left behind.",
        ]
        assert [pid for pid in pids if alive(pid)] == []
        assert list(spool.iterdir()) == []


async def test_table_and_router_lines(spool: Path) -> None:
    """People get a table with whole URLs, whatever the width, and a Router, or two lines for a shell, to paste."""
    async with up(spool, "--replicas", "1", "--apply-delay", "1.5") as process:
        assert process.stdout is not None
        lines: list[str] = []
        while lines[-1:] != ["Ctrl-C stops it."]:
            line = await process.stdout.readline()
            assert line, "it ended"
            lines.append(line.decode().rstrip())
        process.send_signal(signal.SIGINT)
        await asyncio.wait_for(process.communicate(), 20)
    url = next(line.split('"')[1] for line in lines if "primary=" in line)
    assert any("primary" in line and url in line for line in lines if line.startswith("│"))
    assert any("replica, 1.5 s behind" in line for line in lines)
    start = lines.index("db = Router(")
    pasted = "\n".join(lines[start : lines.index(")") + 1])
    router = eval(pasted.partition("=")[2], {"Router": dict})
    assert router["primary"] == url
    assert list(router["replicas"]) == ["replica-1"]
    exported = dict(line.removeprefix("export ").split("=", 1) for line in lines if line.startswith("export "))
    shown = {"LAGWISE_PRIMARY": url, "LAGWISE_REPLICAS": router["replicas"]["replica-1"]}
    assert {name: shlex.split(value) for name, value in exported.items()} == {k: [v] for k, v in shown.items()}


def test_errors_are_one_line() -> None:
    """A PostgreSQL that is not there: one line, status 1, no traceback."""
    done = subprocess.run(
        [sys.executable, "-m", "lagwise", "cluster", "up", "--json"],
        check=False, capture_output=True, text=True, env={**os.environ, "LAGWISE_PG_BIN": "/nowhere"}, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("lagwise: LAGWISE_PG_BIN=/nowhere is not the bin directory")
    assert done.stderr.count("\n") == 1


def test_more_delays_than_replicas_are_refused() -> None:
    """Every delay needs its replica."""
    done = subprocess.run(
        [sys.executable, "-m", "lagwise", "cluster", "up", "--replicas", "0", "--apply-delay", "1"],
        check=False, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 2
    assert "1 delays for 0 replicas" in done.stderr


def test_without_the_extra_one_line_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Status 2, and the command to type."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SystemExit) as exit_:
        lagwise.__main__.main()
    assert exit_.value.code == 2
    assert capsys.readouterr().err == 'lagwise: typer and rich missing: pip install "lagwise[cli]"\n'


@pytest.mark.parametrize("options", [["--json"], ["--apply-delay", "2", "--pg-major", "18"]])
def test_a_signal_ends_it_in_this_process(
    options: list[str], spool: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same within this process: status 0, and the signals are the caller's again."""
    shown = cluster_module._announce

    def show(*args: object, **kwargs: object) -> None:
        shown(*args, **kwargs)  # type: ignore[arg-type]
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr("tempfile.tempdir", str(spool))
    monkeypatch.setattr(cluster_module, "_announce", show)
    monkeypatch.setattr("sys.argv", ["lagwise", "cluster", "up", "--replicas", "1", *options])
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    handlers = (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM))
    try:
        with pytest.raises(SystemExit) as exit_:
            lagwise.__main__.main()
        after = (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM))
    finally:
        signal.signal(signal.SIGINT, before)
    assert exit_.value.code == 0
    assert "127.0.0.1" in capsys.readouterr().out
    assert after == handlers
    assert list(spool.iterdir()) == []


@pytest.mark.parametrize(("options", "status"), [(["--apply-delay=1", "--replicas=0"], 2), (["--pg-major=9"], 1)])
def test_errors_have_a_status(
    options: list[str], status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """2 for a wrong command line, 1 for what went wrong; a word about it on standard error only."""
    monkeypatch.delenv("LAGWISE_PG_BIN", raising=False)
    monkeypatch.setattr("lagwise.testing.choice._containers", lambda major: None)
    monkeypatch.setattr("sys.argv", ["lagwise", "cluster", "up", *options])
    with pytest.raises(SystemExit) as exit_:
        lagwise.__main__.main()
    assert exit_.value.code == status
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err
