"""The source distribution of the SQLAlchemy that is installed: wheels come without its tests."""

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import sqlalchemy

VERSION = sqlalchemy.__version__

_DOWNLOAD = ("download", "--no-deps", "--no-binary", ":all:", f"sqlalchemy=={VERSION}")
_SECONDS = 240


class NotToBeHad(Exception):
    """There is no source distribution; the message says why."""


def cache() -> Path:
    """Where it is kept between runs, for all checkouts; may be deleted at any time."""
    base = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA") or Path.home() / ".cache"
    return Path(base) / "lagwise-tests" / f"sqlalchemy-{VERSION}"


def sources() -> Path:
    """The unpacked distribution, downloaded unless it is there. Raises `NotToBeHad`."""
    kept = cache() / "sources"
    if not kept.exists():
        cache().mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache()) as beside:
            unpacked = _unpack(_download(Path(beside)), Path(beside) / "unpacked")
            try:
                unpacked.rename(kept)  # at once: another run may be at it, too
            except OSError:
                if not kept.exists():
                    raise
    return kept


def _download(into: Path) -> Path:
    reasons = []
    for command in _commands():
        try:
            # pip prepares the metadata of what it downloads; the C extensions are not compiled for that.
            done = subprocess.run(
                command,
                cwd=into,
                capture_output=True,
                text=True,
                timeout=_SECONDS,
                check=False,
                stdin=subprocess.DEVNULL,
            )
        except subprocess.TimeoutExpired:
            reasons.append(f"{command[0]}: not within {_SECONDS} s")
            continue
        if found := list(into.glob("[sS][qQ][lL][aA]*.tar.gz")):
            return found[0]
        reasons.append(f"{Path(command[0]).name}: {(done.stderr.strip() or 'no file').splitlines()[-1]}")
    raise NotToBeHad(f"no source distribution of SQLAlchemy {VERSION}: {'; '.join(reasons) or 'neither uv nor pip'}")


def _commands() -> list[list[str]]:
    """Ways to download it, the quickest first: with the build tools at hand, pip need not fetch them apart."""
    commands = []
    if uvx := shutil.which("uvx"):
        tools = ("--with", "setuptools", "--with", "cython")
        commands.append([uvx, "--quiet", *tools, "pip", *_DOWNLOAD, "--no-build-isolation"])
    commands.append([sys.executable, "-m", "pip", *_DOWNLOAD])
    return commands


def _unpack(archive: Path, into: Path) -> Path:
    with tarfile.open(archive) as tar:
        tar.extractall(into, filter="data")
    (root,) = into.iterdir()
    return root
