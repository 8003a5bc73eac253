"""One PostgreSQL server as a child process: start, stop, kill, and whether it is ready."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

from lagwise.testing.account import Account
from lagwise.testing.backend import Address, Upstream
from lagwise.testing.binaries import Binaries
from lagwise.testing.errors import ClusterError
from lagwise.testing.ports import HeldPort
from lagwise.testing.processes import alive, children, discard, kill, tail, wait_for

HOST = "127.0.0.1"
_START, _STOP, _QUIT, _TOOL = 30.0, 30.0, 5.0, 60.0  # seconds
_ATTEMPTS = 5
_TAKEN = "could not bind"


class LocalServer:
    """A data directory and the ``postgres`` that runs on it, when it runs.

    No ``pg_ctl``: behind it a killed postmaster can stay a zombie, and the next start takes it for alive.
    """

    def __init__(self, name: str, root: Path, binaries: Binaries, account: Account) -> None:
        self.name = name
        self.data = root / name
        self._root = root
        self._log = root / f"{name}.log"
        self._binaries = binaries
        self._account = account
        self._port = HeldPort(HOST)
        self._process: subprocess.Popen[bytes] | None = None
        self._tools: set[subprocess.Popen[bytes]] = set()

    @property
    def address(self) -> Address:
        """Where it listens."""
        return Address(HOST, self._port.number)

    @property
    def running(self) -> bool:
        """Whether the postmaster is alive."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start, and return when it takes connections.

        Raises:
            ClusterError: It did not within 30 s; the message has the end of its log.
        """
        if self.running:
            return
        for attempt in range(1, _ATTEMPTS + 1):
            logged = self._log.stat().st_size if self._log.exists() else 0
            self._launch()
            try:
                wait_for(self._ready, _START, lambda: self._failure("did not become ready"))
            except ClusterError:
                self.kill()
                # Where a port cannot be held (see ports.py) another process may have taken it: try the next one.
                if attempt == _ATTEMPTS or _TAKEN not in self._logged(logged):
                    raise
                self._port.renew()
            else:
                return

    def stop(self) -> None:
        """Shut down in PostgreSQL's fast mode: sessions are ended, standbys get everything they can be sent.

        Raises:
            ClusterError: It took more than 30 s.
        """
        if self.running:
            self._signal(signal.SIGINT)
            self._reap("did not stop", _STOP)

    def kill(self) -> None:
        """SIGKILL for the postmaster and every child, and return when they are gone."""
        if self._process is None:
            return
        if self.running:
            self._signal(signal.SIGSTOP)  # a running postmaster could start new children meanwhile
            victims = children(self._process.pid)
            self._signal(signal.SIGKILL)
            for pid in victims:
                kill(pid)
            self._reap("did not die", _STOP)
            # A child that still holds the shared memory would make the next start fail.
            wait_for(lambda: not any(map(alive, victims)), 10.0, lambda: self._failure("left children behind"))
        self._forget()

    def rejoin(self, upstream: Upstream) -> None:
        """Become a standby of ``upstream``: rewound if pg_rewind is there and agrees, else cloned again."""
        assert not self.running
        own = self.data / "postgresql.auto.conf"
        kept = own.read_text() if own.exists() else ""
        if not self._rewind(upstream):
            self.clone(upstream)
        own.write_text(kept)  # pg_rewind and pg_basebackup bring the source's: its delay, its upstream
        self.point_at(upstream)

    def clone(self, upstream: Upstream) -> None:
        """Replace the data by a copy of the upstream's, taken over the address it will stream from."""
        discard(self.data)
        self.run(
            "pg_basebackup", "--pgdata", str(self.data), "--dbname", upstream.conninfo,
            "--slot", upstream.slot,
            "--wal-method=stream", "--checkpoint=fast", "--no-sync", "--no-manifest", "--no-verify-checksums",
        )  # fmt: skip

    def point_at(self, upstream: Upstream) -> None:
        """Follow ``upstream`` from the next start on.

        Written here, not by ``-R``: a newer pg_basebackup writes connection options an older server rejects,
        and pg_rewind copies the source's slot name.
        """
        signal_file = self.data / "standby.signal"
        signal_file.touch()
        self._account.give(signal_file)
        with (self.data / "postgresql.auto.conf").open("a") as conf:
            conf.write(f"primary_conninfo = '{upstream.conninfo}'\nprimary_slot_name = '{upstream.slot}'\n")

    def run(self, program: str, *arguments: str, env: dict[str, str] | None = None) -> None:
        """Run one of PostgreSQL's programs to its end, at most 60 s.

        Raises:
            ClusterError: It failed; the message has what it said last.
        """
        output = self._root / f"{self.name}.{program}.log"
        with output.open("wb") as log:
            process = self._account.popen(
                [self._binaries.program(program), *arguments], cwd=self._root, env=env, output=log.fileno()
            )
            self._tools.add(process)
            try:
                status = process.wait(_TOOL)
            except subprocess.TimeoutExpired:
                _end(process)
                process.wait()
                status = None
            finally:
                self._tools.discard(process)
        if status != 0:
            how = f"took more than {_TOOL:g} s" if status is None else f"failed with exit status {status}"
            message = f"{program} for {self.name} {how}.\n{tail(output)}"
            raise ClusterError(message)

    def close(self) -> None:
        """End it as fast as possible; the data is not needed any more. Does not raise."""
        for tool in list(self._tools):
            _end(tool)
        if self.running:
            self._signal(signal.SIGQUIT)
            try:
                self._reap("did not quit", _QUIT)
            except ClusterError:
                with suppress(ClusterError):  # nothing more can be done; the other servers must still end
                    self.kill()
        elif self._process is not None:
            self._forget()
        self._port.release()

    def _forget(self) -> None:
        """Remove what a server removes when it is given the time."""
        pid_file = self.data / "postmaster.pid"
        lines = pid_file.read_text().splitlines() if pid_file.exists() else []
        if len(lines) >= 7 and len(segment := lines[6].split()) == 2:  # key and id of its System V shared memory
            with suppress(OSError, subprocess.TimeoutExpired):  # 56 bytes are not worth an error
                self._account.popen(["ipcrm", "-m", segment[1]], cwd=self._root).wait(_QUIT)
        # A later process with the same number must not be taken for this server.
        pid_file.unlink(missing_ok=True)

    def _launch(self) -> None:
        command = [
            self._binaries.program("postgres"), "-D", str(self.data), "-p", str(self._port.number),
            "-c", f"listen_addresses={HOST}", "-c", f"cluster_name={self.name}",
        ]  # fmt: skip
        with self._log.open("ab") as log:
            self._process = self._account.popen(command, cwd=self._root, output=log.fileno())

    def _ready(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise self._failure(f"ended with exit status {self._process.returncode}")
        try:
            lines = (self.data / "postmaster.pid").read_text().splitlines()
        except OSError:
            return False
        # Line 1: the pid (it may still be a dead predecessor's); line 8: the status, padded with blanks.
        mine = len(lines) >= 8 and lines[0] == str(self._process.pid)
        return mine and lines[7].strip() in {"ready", "standby"}

    def _rewind(self, upstream: Upstream) -> bool:
        if not self._binaries.has("pg_rewind"):
            return False
        try:
            self.run(
                "pg_rewind", "--target-pgdata", str(self.data), "--source-server",
                f"{upstream.conninfo} dbname=postgres", "--no-sync",
            )  # fmt: skip
        except ClusterError:
            return False  # WAL since the fork is gone, say: a clone always works
        return True

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def _reap(self, failure: str, seconds: float) -> None:
        assert self._process is not None
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise self._failure(f"{failure} within {seconds:g} s") from None

    def _failure(self, what: str) -> ClusterError:
        return ClusterError(f"PostgreSQL server {self.name} {what}.\n{tail(self._log)}")

    def _logged(self, since: int) -> str:
        return self._log.read_bytes()[since:].decode(errors="replace")


def _end(tool: subprocess.Popen[bytes]) -> None:
    """SIGKILL for a program and what it started: its session is its own."""
    with suppress(ProcessLookupError):
        os.killpg(tool.pid, signal.SIGKILL)
