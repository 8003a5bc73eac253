"""Which PostgreSQL is used, and what is said when there is none."""

import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from lagwise.testing import Binaries, BinariesNotFound, Cluster, ClusterError
from lagwise.testing import account as accounts
from lagwise.testing import binaries as module
from lagwise.testing.account import Account, reachable
from lagwise.testing.binaries import find_binaries
from lagwise.testing.choice import choose_backend


def pretend(directory: Path, version: str, *programs: str) -> Path:
    """A bin directory that looks like PostgreSQL's."""
    directory.mkdir(parents=True)
    for program in programs or module.NEEDED:
        path = directory / program
        path.write_text(f"#!/bin/sh\necho '{program} (PostgreSQL) {version} (Somewhere 12)'\n")
        path.chmod(0o755)
    return directory


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine with no PostgreSQL at all, but for what the test puts under this path."""
    monkeypatch.setattr(module, "VERSIONED", (f"{tmp_path}/lib/*/bin",))
    monkeypatch.setattr(module, "EMBEDDED", (("no_such_wheel", "pginstall"),))
    monkeypatch.setattr("shutil.which", lambda name: None)
    return tmp_path


def test_named_binaries_come_first(nowhere: Path) -> None:
    """``LAGWISE_PG_BIN`` is used before anything else."""
    pretend(nowhere / "lib" / "17" / "bin", "17.2")
    mine = pretend(nowhere / "mine", "14.1")
    assert find_binaries(environ={"LAGWISE_PG_BIN": str(mine)}) == Binaries(mine, "14.1", "LAGWISE_PG_BIN")


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda path: None, "no such directory"),
        (lambda path: path.mkdir(), "no initdb, postgres, pg_basebackup in it"),
        (lambda path: pretend(path, "16.1", "postgres", "initdb"), "no pg_basebackup in it"),
        (
            lambda path: (pretend(path, "16.1") / "postgres").write_text("#!/bin/sh\nexit 3\n"),
            "its postgres does not run",
        ),
    ],
)
async def test_wrongly_named_binaries_are_a_clear_error(
    nowhere: Path, make: Callable[[Path], object], why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``LAGWISE_PG_BIN`` set to no PostgreSQL says so and why; nothing else is tried in its place, not even Docker."""
    path = nowhere / "mine"
    make(path)
    pretend(nowhere / "lib" / "17" / "bin", "17.2")
    monkeypatch.setenv("LAGWISE_PG_BIN", str(path))
    monkeypatch.delenv("LAGWISE_PG_MAJOR", raising=False)
    with pytest.raises(ClusterError, match=rf"^LAGWISE_PG_BIN={path} is not .*: {why}\. Point it at"):
        async with Cluster():
            pass


def test_the_newest_one_is_taken_unless_a_major_is_asked_for(nowhere: Path) -> None:
    """Versioned directories are compared as numbers; an argument, else ``LAGWISE_PG_MAJOR``, picks one."""
    for version in ("9.6.24", "15.4", "18beta1"):
        pretend(nowhere / "lib" / f"postgresql@{module._major(version)}" / "bin", version)
    assert (find_binaries(environ={}).version, find_binaries(environ={}).major) == ("18beta1", 18)
    assert find_binaries(15, environ={"LAGWISE_PG_MAJOR": "18"}).version == "15.4"
    assert find_binaries(environ={"LAGWISE_PG_MAJOR": "15"}).version == "15.4"
    mine = str(pretend(nowhere / "mine", "14.1"))
    with pytest.raises(ClusterError, match=r"is PostgreSQL 14\.1, but 15 was asked for"):
        find_binaries(15, environ={"LAGWISE_PG_BIN": mine})
    with pytest.raises(ClusterError, match="LAGWISE_PG_MAJOR='new' is not"):
        find_binaries(environ={"LAGWISE_PG_MAJOR": "new"})


def test_nothing_found_says_where_and_what_to_do(nowhere: Path) -> None:
    """The error lists the places, what was there and why not, and the remedies."""
    pretend(nowhere / "lib" / "16" / "bin", "16.1", "postgres", "initdb")
    pretend(nowhere / "lib" / "15" / "bin", "15.1")
    with pytest.raises(BinariesNotFound) as error:
        find_binaries(18, environ={})
    assert str(error.value) == (
        "No PostgreSQL 18 server (initdb, postgres, pg_basebackup) found. "
        f"Looked at pg_config, {nowhere}/lib/*/bin, the [embedded] wheel. "
        f"Found, and no use: {nowhere}/lib/16/bin: no pg_basebackup in it; {nowhere}/lib/15/bin: 15.1. "
        'Remedies: `pip install "lagwise[embedded]"` brings a PostgreSQL; LAGWISE_PG_BIN names the bin directory of '
        'one; `pip install "lagwise[docker]"` lets a Docker engine serve.'
    )


def test_pg_config_is_asked_first(nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What ``pg_config --bindir`` names wins over a newer versioned directory; without a server there it does not."""
    mine = pretend(nowhere / "mine", "15.1")
    pretend(nowhere / "lib" / "16" / "bin", "16.1")
    monkeypatch.setattr("shutil.which", lambda name: f"/bin/{name}")
    monkeypatch.setattr(module, "_output", _asked(mine, module._output))
    assert find_binaries(environ={}) == Binaries(mine, "15.1", "pg_config")
    (mine / "initdb").unlink()
    assert find_binaries(environ={}).origin == "this machine"


def _asked(answer: Path, real: Callable[..., str | None]) -> Callable[..., str | None]:
    return lambda *command: str(answer) if command[-1] == "--bindir" else real(*command)


@pytest.mark.parametrize("engine", [True, False])
def test_containers_serve_where_there_are_no_binaries(
    nowhere: Path, engine: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without binaries the Docker backend is used, when it has an engine; else the error is the one about binaries."""
    monkeypatch.delenv("LAGWISE_PG_BIN", raising=False)
    backend = object() if engine else None
    fake = SimpleNamespace(available=lambda major: backend)
    monkeypatch.setattr("importlib.import_module", lambda name: fake)
    if engine:
        assert choose_backend() is backend
    else:
        with pytest.raises(BinariesNotFound, match="lagwise\\[embedded\\]"):
            choose_backend()


def test_without_a_docker_module_the_error_is_about_binaries(nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing extra is no traceback."""

    def missing(name: str) -> object:
        raise ImportError(name)

    monkeypatch.delenv("LAGWISE_PG_BIN", raising=False)
    monkeypatch.setattr("importlib.import_module", missing)
    with pytest.raises(BinariesNotFound):
        choose_backend()


@pytest.fixture
def hidden(postgres: Callable[[int], Binaries], tmp_path: Path) -> Iterator[Binaries]:
    """Real, relocatable binaries in a directory that only its owner may enter."""
    found = postgres(16)
    if found.origin != "lagwise[embedded]":
        pytest.skip("only the wheel's binaries can be moved")
    package = found.path.parent.parent
    home = tmp_path / "home"
    shutil.copytree(package.with_name(package.name + ".libs"), home / f"{package.name}.libs")
    shutil.copytree(found.path.parent, home / package.name / "pginstall")
    home.chmod(0o700)
    yield Binaries(home / package.name / "pginstall" / "bin", found.version, "hidden")
    shutil.rmtree(home)


@pytest.mark.usefixtures("as_root")
async def test_root_runs_binaries_out_of_its_own_home(
    hidden: Binaries, spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Binaries the servers' account cannot reach are copied once, and the servers are not root's."""
    monkeypatch.setattr("tempfile.tempdir", str(spool))
    for _ in range(2):
        async with Cluster(replicas=1, binaries=hidden) as cluster:
            assert await cluster.replicas[0].fetchval("SELECT pg_is_in_recovery()") is True
            data = await cluster.primary.fetchval("SHOW data_directory")
            assert Path(data).stat().st_uid != 0
            assert str(hidden.path) in cluster.origin
    (copy,) = spool.iterdir()
    copy.chmod(0o777)
    with pytest.raises(ClusterError, match="is not ours alone"):
        reachable(hidden, accounts.server_account())


@pytest.mark.usefixtures("as_root")
def test_an_ordinary_user_has_a_cluster(spool: Path) -> None:
    """Nothing needs root: after giving it up for good the same works, with servers of one's own."""
    script = """
        import asyncio, concurrent.futures.thread, encodings.idna, os, pwd
        from pathlib import Path
        from lagwise.testing import Cluster

        # Imported before, not started as that user: the interpreter itself may live in root's home.
        nobody = pwd.getpwnam("nobody")
        os.setgroups([]); os.setgid(nobody.pw_gid); os.setuid(nobody.pw_uid)

        async def main():
            async with Cluster(replicas=1) as cluster:
                await cluster.primary.execute("CREATE TABLE t ()")
                await cluster.caught_up()
                await cluster.kill("replica-1")
                await cluster.start("replica-1")
                data = Path(await cluster.replicas[0].fetchval("SHOW data_directory"))
                print(data.stat().st_uid == nobody.pw_uid)

        asyncio.run(main())
    """
    # Coverage follows subprocesses, and could not write into the checkout as that user.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(script)],
        check=False, capture_output=True, text=True, cwd="/", env={**environment, "TMPDIR": str(spool)}, timeout=60,
    )  # fmt: skip
    assert (done.stdout, done.stderr, done.returncode) == ("True\n", "", 0)
    assert list(spool.iterdir()) == []


def test_root_without_an_account_to_lend_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the accounts that would do."""
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr(accounts, "_ACCOUNTS", ("no-such-account",))
    with pytest.raises(ClusterError, match="none of the accounts no-such-account exists"):
        accounts.server_account()


def test_an_ordinary_user_runs_servers_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without root nobody is lent an account, nothing changes hands, and nothing is copied."""
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    account = accounts.server_account()
    assert account == Account()
    tmp_path.chmod(0o700)
    mine = Binaries(pretend(tmp_path / "bin", "16.1"), "16.1", "mine")
    account.give(tmp_path)
    assert reachable(mine, account) == mine


@pytest.mark.parametrize("quicker", [True, False])
def test_two_processes_may_copy_at_once(
    tmp_path: Path, spool: Path, quicker: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who comes second uses the first one's copy and throws its own away; a copy that fails leaves nothing."""
    home = tmp_path / "home"
    mine = Binaries(pretend(home / "pg" / "bin", "16.1"), "16.1", "mine")
    home.chmod(0o700)
    monkeypatch.setattr("tempfile.tempdir", str(spool))

    def rename(fresh: Path, copy: Path) -> None:
        if quicker:
            shutil.copytree(fresh, copy)
        raise OSError

    monkeypatch.setattr(Path, "rename", rename)
    stranger = Account(uid=os.geteuid() + 12345, gid=os.getegid() + 12345)
    if quicker:
        copy = reachable(mine, stranger)
        assert find_binaries(environ={"LAGWISE_PG_BIN": str(copy.path)}).version == "16.1"
        assert list(spool.iterdir()) == [copy.path.parents[2]]
    else:
        with pytest.raises(OSError, match=r"^$"):
            reachable(mine, stranger)
        assert list(spool.iterdir()) == []


def test_windows_is_told_what_to_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where processes cannot be run the error names WSL and Docker."""
    monkeypatch.setattr("sys.platform", "win32")
    with pytest.raises(ClusterError, match="WSL"):
        accounts.server_account()


def test_no_temporary_directory_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory the account cannot pass is not used, and the error says what to set."""
    tmp_path.chmod(0o700)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
    monkeypatch.setattr(accounts, "_TEMPORARY", (str(tmp_path),))
    stranger = Account(uid=os.geteuid() + 12345, gid=os.getegid() + 12345)
    with pytest.raises(ClusterError, match="set TMPDIR"):
        accounts.data_directory(stranger)


def test_reach_is_read_from_the_mode_bits(tmp_path: Path) -> None:
    """Owner, group and others each have their own bit, and every directory on the way counts."""
    inner = tmp_path / "a"
    inner.mkdir()
    about = inner.stat()
    for mode, uid, gid, expected in [
        (0o100, about.st_uid, -2, True),
        (0o011, about.st_uid, -2, False),
        (0o010, -2, about.st_gid, True),
        (0o101, -2, about.st_gid, False),
        (0o001, -2, -2, True),
        (0o110, -2, -2, False),
    ]:
        inner.chmod(mode)
        assert Account(uid, gid)._may_pass(inner.stat()) is expected
    inner.chmod(0o700)
