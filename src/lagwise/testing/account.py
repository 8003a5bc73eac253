"""The account that the servers run under: PostgreSQL refuses to run as root, so root uses another account."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lagwise.testing.binaries import Binaries
from lagwise.testing.errors import ClusterError

_ACCOUNTS = ("postgres", "nobody")
_TEMPORARY = ("/tmp", "/var/tmp", "/dev/shm")  # noqa: S108 - where every account may go, tried after the configured one


@dataclass(frozen=True, slots=True)
class Account:
    """The account that runs the servers; without ids, this process's own."""

    uid: int | None = None
    gid: int | None = None

    def reaches(self, path: Path) -> bool:
        """Whether every directory on the way to ``path`` lets this account through, by its mode bits."""
        if self.uid is None:
            return True
        real = path.resolve()
        return all(self._may_pass(step.stat()) for step in [real, *real.parents] if step.is_dir())

    def _may_pass(self, directory: os.stat_result) -> bool:
        if directory.st_uid == self.uid:
            return bool(directory.st_mode & stat.S_IXUSR)
        if directory.st_gid == self.gid:
            return bool(directory.st_mode & stat.S_IXGRP)
        return bool(directory.st_mode & stat.S_IXOTH)

    def give(self, path: Path) -> None:
        """Make ``path`` this account's."""
        if self.uid is not None and self.gid is not None:
            os.chown(path, self.uid, self.gid)

    def popen(
        self,
        command: Sequence[str],
        *,
        cwd: Path,
        env: dict[str, str] | None = None,
        stdin: int = subprocess.DEVNULL,
        output: int = subprocess.DEVNULL,
    ) -> subprocess.Popen[bytes]:
        """Start ``command`` as this account, in its own session: a terminal's Ctrl-C is for us alone.

        ``PG*`` variables are not passed on: they would send the programs to another server.
        """
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("PG")}
        return subprocess.Popen(  # noqa: S603 - PostgreSQL's programs and sh
            command,
            stdin=stdin, stdout=output, stderr=output if output == subprocess.DEVNULL else subprocess.STDOUT,
            cwd=cwd, env={**inherited, "LC_ALL": "C", **(env or {})}, start_new_session=True,
            user=self.uid, group=self.gid, extra_groups=None if self.uid is None else [],
        )  # fmt: skip


def server_account() -> Account:
    """This process's own account, or for root ``postgres``, else ``nobody``.

    Raises:
        ClusterError: On Windows, or for root on a machine with neither account.
    """
    if sys.platform == "win32":
        message = (
            "lagwise.testing runs PostgreSQL processes on Linux and macOS only. "
            'On Windows use WSL, or `pip install "lagwise[docker]"` and a Docker engine.'
        )
        raise ClusterError(message)
    if os.geteuid() != 0:
        return Account()
    import pwd  # noqa: PLC0415 - POSIX only

    for name in _ACCOUNTS:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(entry.pw_uid, entry.pw_gid)
    message = f"Running as root, and PostgreSQL does not: none of the accounts {', '.join(_ACCOUNTS)} exists here."
    raise ClusterError(message)


def data_directory(account: Account) -> Path:
    """A new temporary directory that belongs to ``account`` and that it can reach.

    Raises:
        ClusterError: No temporary directory will do.
    """
    root = Path(tempfile.mkdtemp(prefix="lagwise-", dir=_temporary(account)))
    account.give(root)
    return root


def reachable(binaries: Binaries, account: Account) -> Binaries:
    """``binaries`` where ``account`` can run them: in place, or copied once into a temporary directory.

    A checkout in root's home (mode 0700) is out of reach for the account root lends. The copy keeps the
    layout, because the programs find ``share`` and the wheel's ``NAME.libs`` relative to themselves.
    """
    real = binaries.path.resolve()  # past symbolic links in places that are out of reach themselves
    if account.reaches(real):
        return replace(binaries, path=real)
    prefix = real.parent
    mark = f"{binaries.program('postgres')} {Path(binaries.program('postgres')).stat().st_mtime_ns}"
    digest = hashlib.sha256(mark.encode()).hexdigest()[:12]
    copy = _temporary(account) / f"lagwise-pg-{binaries.version}-{digest}"
    if not copy.exists():
        fresh = Path(tempfile.mkdtemp(prefix="lagwise-copy-", dir=copy.parent))
        try:
            for part in ("bin", "lib", "share"):
                if (prefix / part).is_dir():
                    shutil.copytree(prefix / part, fresh / prefix.parent.name / prefix.name / part, symlinks=True)
            libs = prefix.parent.with_name(prefix.parent.name + ".libs")
            if libs.is_dir():
                shutil.copytree(libs, fresh / libs.name)
            fresh.chmod(0o755)
            try:
                fresh.rename(copy)
            except OSError:
                if not copy.is_dir():
                    raise  # otherwise another process was first
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
    about = copy.lstat()
    if about.st_uid != os.geteuid() or about.st_mode & 0o022 or not stat.S_ISDIR(about.st_mode):
        message = f"{copy} is not ours alone, so nothing in it will be run. Remove it."
        raise ClusterError(message)
    return replace(binaries, path=copy / prefix.parent.name / prefix.name / real.name)


def _temporary(account: Account) -> Path:
    for place in (Path(tempfile.gettempdir()), *map(Path, _TEMPORARY)):
        if place.is_dir() and os.access(place, os.W_OK) and account.reaches(place):
            return place
    message = f"No temporary directory that the servers' account can reach; set TMPDIR. Tried {_TEMPORARY}."
    raise ClusterError(message)
