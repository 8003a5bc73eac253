"""Functions for processes and their files, on Linux and macOS."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

_PROC = Path("/proc")


def children(parent: int) -> list[int]:
    """The process ids of a process's direct children."""
    return [pid for pid, ppid, _ in _table() if ppid == parent]


def alive(pid: int) -> bool:
    """Whether there is such a process; a zombie is none: it holds no memory and no port."""
    return any(found == pid and not state.startswith("Z") for found, _, state in _table())


def kill(pid: int) -> None:
    """Send SIGKILL, when the process is still there."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def wait_for(condition: Callable[[], bool], seconds: float, late: Callable[[], Exception]) -> None:
    """Poll ``condition`` every 10 ms in the calling thread; after ``seconds`` raise what ``late`` makes."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise late()
        time.sleep(0.01)


def tail(path: Path, lines: int = 12) -> str:
    """The last lines of a log, indented."""
    text = path.read_text(errors="replace") if path.exists() else ""
    return "\n".join(f"    {line}" for line in text.splitlines()[-lines:]) or "    (it said nothing)"


def discard(directory: Path) -> None:
    """Delete a directory with all that is in it, if it is there."""
    if directory.exists():
        shutil.rmtree(directory)


def _table() -> Iterator[tuple[int, int, str]]:
    """(pid, parent, state) of every process."""
    if (_PROC / "self" / "stat").exists():  # small images have no ps
        for entry in _PROC.iterdir():
            if entry.name.isdecimal():
                try:
                    stat = (entry / "stat").read_text()
                except OSError:
                    continue  # gone between the listing and the reading
                state, ppid = stat.rpartition(")")[2].split()[:2]  # the name before may hold blanks
                yield int(entry.name), int(ppid), state
        return
    command = ["ps", "-A", "-o", "pid=,ppid=,state="]
    listing = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603 - a constant
    for line in listing.stdout.splitlines():
        pid, parent, state = line.split()
        yield int(pid), int(parent), state
