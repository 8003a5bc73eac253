"""SQLAlchemy's suite in a process of its own, and the outcomes that it had before with the same sources."""

import asyncio
import fcntl
import hashlib
import json
import os
import sys
import tempfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal, Self

import lagwise

from . import sdist

Mode = Literal["plain", "classes", "router"]

_SECONDS = 500
_KEPT = 8  # of each run: some Pythons, and some states of the sources
_REPOSITORY = Path(__file__).parents[3]


@dataclass(frozen=True, slots=True)
class Run:
    """One file of SQLAlchemy's tests, in one mode of the plugin."""

    file: str
    mode: Mode

    @property
    def asynchronous(self) -> bool:
        """Whether the tests need an asynchronous driver, and so a server."""
        return "asyncio" in self.file


@dataclass(frozen=True, slots=True)
class Outcomes:
    """What became of each test: passed, failed or skipped; and how the failed ones failed."""

    run: Run
    outcomes: dict[str, str]
    failures: dict[str, str]

    @property
    def passed(self) -> set[str]:
        """The tests that passed, by their names."""
        return {_name(test) for test, outcome in self.outcomes.items() if outcome == "passed"}

    def failure(self, name: str) -> str:
        """The traceback of the test of this name; empty if it has none."""
        return next((text for test, text in self.failures.items() if _name(test) == name), "")

    def keep(self) -> None:
        """Let the next run of the same sources take these."""
        self.write(_kept(self.run))
        earlier = sorted(sdist.cache().glob(f"{_prefix(self.run)}*.json"), key=lambda path: path.stat().st_mtime)
        for path in earlier[:-_KEPT]:
            path.unlink(missing_ok=True)

    def write(self, path: Path) -> None:
        """Write them there, whole or not at all."""
        written = json.dumps({"outcomes": self.outcomes, "failures": self.failures})
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, delete=False) as file:
            file.write(written)
        Path(file.name).replace(path)


def kept(run: Run) -> Outcomes | None:
    """The outcomes of an earlier run of the very same sources, if there was one."""
    return _read(run, _kept(run))


class Shared:
    """A folder in which pytest's workers find what one of them has run; inside the block the others wait."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __enter__(self) -> Self:
        self._lock = (self._folder / "upstream.lock").open("w")
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.close()

    def found(self, run: Run) -> Outcomes | None:
        """What another worker has run, or an earlier run of the very same sources."""
        return kept(run) or _read(run, self._of(run))

    def add(self, outcomes: Outcomes) -> None:
        """Let the other workers find these."""
        outcomes.write(self._of(outcomes.run))

    def _of(self, run: Run) -> Path:
        return self._folder / f"upstream-{_prefix(run)}outcomes.json"


def _read(run: Run, path: Path) -> Outcomes | None:
    return Outcomes(run, **json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None


async def outcomes(run: Run, database: str) -> Outcomes:
    """Run it; `database` is the URL. Raises `RuntimeError` when the suite does not come to its end."""
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder) / "outcomes.json"
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(("PYTEST_", "COV_CORE_"))}
        process = await asyncio.create_subprocess_exec(
            # -s: the SQLAlchemy that is installed, not the one that lies beside its tests
            sys.executable, "-s", "-m", "pytest", "-q", "-p", f"{__package__}.plugin", "-p", "no:cacheprovider",
            "--dburi", database, run.file,
            cwd=sdist.sources(), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
            env=inherited | {
                "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
                "PYTHONPATH": str(_REPOSITORY),
                "LAGWISE_UPSTREAM": run.mode,
                "LAGWISE_OUTCOMES": str(written),
            },
        )  # fmt: skip
        try:
            async with asyncio.timeout(_SECONDS):
                said, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if not written.exists() or not (found := json.loads(written.read_text(encoding="utf-8")))["outcomes"]:
            raise RuntimeError(f"SQLAlchemy's suite did not run ({run}): {said.decode(errors='replace')[-3000:]}")
    return Outcomes(run, **found)


def _name(test: str) -> str:
    """`Class::test[parameters]`, without the file and the database, which SQLAlchemy adds to the class."""
    class_, _, function = test.partition("::")[2].partition("::")
    return f"{class_.partition('_postgresql+')[0].partition('_sqlite+')[0]}::{function}"


def _kept(run: Run) -> Path:
    return sdist.cache() / f"{_prefix(run)}{_fingerprint(run)}.json"


def _prefix(run: Run) -> str:
    return f"{'async' if run.asynchronous else 'sync'}-{run.mode}-"


def _fingerprint(run: Run) -> str:
    """Of everything the outcomes depend on."""
    digest = hashlib.sha256(repr((run, sys.version, sys.platform)).encode())
    for package in ("sqlalchemy", "asyncpg", "greenlet", "pytest"):
        digest.update(version(package).encode())
    for source in [*(() if run.mode == "plain" else _sources()), Path(__file__).with_name("plugin.py")]:
        digest.update(source.read_bytes())
    return digest.hexdigest()[:16]


def _sources() -> list[Path]:
    """The modules that sessions stand on."""
    package = Path(lagwise.__file__).parent
    private = [source for folder in package.glob("_[a-z]*") for source in folder.glob("*.py")]
    return sorted([*private, *(package / f"{name}.py" for name in ("router", "policy", "errors"))])
