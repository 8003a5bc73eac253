"""Servers that misbehave are reported with their log, in bounded time, and never left behind."""

import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lagwise.testing import Binaries, Cluster, ClusterError
from lagwise.testing import ports as ports_module
from lagwise.testing import processes as processes_module
from lagwise.testing import server as server_module
from lagwise.testing import watchdog as watchdog_module
from lagwise.testing.account import server_account
from lagwise.testing.binaries import find_binaries
from lagwise.testing.local import LocalBackend
from lagwise.testing.ports import HeldPort, bound
from lagwise.testing.processes import alive, children
from lagwise.testing.server import LocalServer
from lagwise.testing.watchdog import Watchdog


@pytest.fixture
def backend(spool: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalBackend]:
    """A backend without servers, whose directory is gone afterwards."""
    monkeypatch.setattr("tempfile.tempdir", str(spool))
    backend = LocalBackend(find_binaries())
    yield backend
    backend.close()
    assert list(spool.iterdir()) == []


def create(backend: LocalBackend) -> LocalServer:
    return backend.create_primary("primary", user="me", password="secret", settings={})


def postmaster(server: LocalServer) -> int:
    return int((server.data / "postmaster.pid").read_text().split()[0])


def test_a_taken_port_is_exchanged(backend: LocalBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a port cannot be held and somebody was quicker, the server starts on another one."""
    monkeypatch.setattr(ports_module, "HOLDS", False)
    squatters: list[socket.socket] = []
    launch = LocalServer._launch

    def squat(server: LocalServer) -> None:
        if not squatters:
            squatters.append(bound(*server.address))
            squatters[0].listen()
        launch(server)

    monkeypatch.setattr(LocalServer, "_launch", squat)
    server = create(backend)
    assert server.running
    assert server.address.port != squatters[0].getsockname()[1]
    squatters[0].close()


def test_a_held_port_is_nobody_elses() -> None:
    """A port in use cannot be taken, and one that was released can be taken again."""
    port = HeldPort("127.0.0.1")
    port.release()
    with bound("127.0.0.1", port.number) as sock:
        sock.listen()
        with pytest.raises(OSError, match="in use"):
            bound("127.0.0.1", port.number)
    port.release()


def test_stubborn_servers_are_killed(backend: LocalBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that does not stop in time is an error with its log; closing the cluster ends it all the same."""
    monkeypatch.setattr(server_module, "_STOP", 0.05)
    server = create(backend)
    pid = postmaster(server)
    family = [pid, *children(pid)]
    os.kill(pid, signal.SIGSTOP)
    with pytest.raises(ClusterError, match=r"(?s)primary did not stop within 0\.05 s.*ready to accept connections"):
        server.stop()
    monkeypatch.setattr(server_module, "_QUIT", 0.05)
    monkeypatch.setattr(server_module, "_STOP", 10.0)
    backend.close()
    assert [member for member in family if alive(member)] == []


def test_a_program_that_hangs_is_ended(backend: LocalBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    """Initdb gets a minute, then the error says so."""
    monkeypatch.setattr(server_module, "_TOOL", 0.001)
    with pytest.raises(ClusterError, match=r"initdb for primary took more than 0\.001 s"):
        create(backend)


def segments() -> list[str]:
    """The ids of all System V shared memory."""
    table = Path("/proc/sysvipc/shm")
    if not table.exists():
        pytest.skip("only Linux lists shared memory in /proc")
    return [line.split()[1] for line in table.read_text().splitlines()[1:]]


def test_starting_and_killing_twice_is_fine(backend: LocalBackend) -> None:
    """Neither does anything the second time; a killed server leaves no shared memory; closed is closed."""
    server = create(backend)
    pid = postmaster(server)
    server.start()
    assert postmaster(server) == pid
    segment = (server.data / "postmaster.pid").read_text().splitlines()[6].split()[1]
    assert segment in segments()
    server.kill()
    server.kill()
    assert not server.running
    assert segment not in segments()
    backend.close()
    with pytest.raises(ClusterError, match="closed"):
        create(backend)


def test_a_server_that_never_started_can_be_killed(tmp_path: Path, postgres: Callable[[int], Binaries]) -> None:
    """Nothing happens."""
    server = LocalServer("never", tmp_path, find_binaries(), server_account())
    server.kill()
    server.close()
    assert not server.running


def test_children_are_found_without_proc(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where there is no /proc, ps tells: macOS."""
    monkeypatch.setattr(processes_module, "_PROC", tmp_path)
    with subprocess.Popen(["sleep", "60"]) as child:
        try:
            assert child.pid in children(os.getpid())
            assert alive(child.pid)
            processes_module.kill(child.pid)
        finally:
            child.kill()
    assert not alive(child.pid)
    processes_module.kill(child.pid)


def test_a_watchdog_that_hangs_is_killed(monkeypatch: pytest.MonkeyPatch, spool: Path) -> None:
    """Closing is bounded, whatever the shell does."""
    monkeypatch.setattr(watchdog_module, "_SCRIPT", "exec sleep 60")
    monkeypatch.setattr(watchdog_module, "_PATIENCE", 0.05)
    place = spool / "data"
    place.mkdir()
    account = server_account()
    account.give(place)
    Watchdog(place, account).close()
    assert not place.exists()


async def test_pg_variables_do_not_lead_astray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody's PGHOST and PGDATA are for somebody's own server."""
    for name, value in {"PGHOST": "example.invalid", "PGDATA": "/nowhere", "PGOPTIONS": "-c nonsense=1"}.items():
        monkeypatch.setenv(name, value)
    async with Cluster(replicas=1) as cluster:
        await cluster.caught_up()
