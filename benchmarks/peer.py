"""Other processes that take part: each answers one line of JSON for each line of JSON it is sent.

Standard input is the life line: when it closes, however this process ended, the other one leaves by itself.
"""

import asyncio
import inspect
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).resolve().parents[1]
_LONGEST = 1 << 24  # bytes of one answer
_PATIENCE = 10.0  # seconds


class PeerError(RuntimeError):
    """The other process did not answer; the message has the last line it complained with."""


@dataclass(frozen=True, slots=True)
class Peer:
    """The asking end."""

    name: str
    process: asyncio.subprocess.Process
    complaints: IO[bytes]

    async def ask(self, **request: Any) -> Any:
        """Send a request and wait for its answer. Raises `PeerError`."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps(request).encode() + b"\n")
            await self.process.stdin.drain()
            line = await self.process.stdout.readline()
            return json.loads(line)
        except (OSError, ValueError) as error:
            raise PeerError(f"{self.name}: {self._last_words() or 'no answer'}") from error

    def _last_words(self) -> str:
        self.complaints.seek(0)
        lines = [line.strip() for line in self.complaints.read().decode(errors="replace").splitlines()]
        return next((line for line in reversed(lines) if line), "")


@asynccontextmanager
async def peer(name: str, command: Sequence[str], **environment: str) -> AsyncIterator[Peer]:
    """Another process, until the block ends."""
    with tempfile.TemporaryFile() as complaints:
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd=ROOT,
            env={**os.environ, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=complaints,
            limit=_LONGEST,
            start_new_session=True,  # Ctrl-C is for us; the others leave when their input ends
        )
        try:
            yield Peer(name, process, complaints)
        finally:
            await _ended(process)


@asynccontextmanager
async def module(name: str, *arguments: str) -> AsyncIterator[Peer]:
    """A module of this package, in a process of its own."""
    async with peer(name, [sys.executable, "-m", f"benchmarks.{name}", *arguments]) as started:
        yield started


async def _ended(process: asyncio.subprocess.Process) -> None:
    assert process.stdin is not None
    process.stdin.close()
    try:
        async with asyncio.timeout(_PATIENCE):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


async def answer(handle: Callable[..., Any]) -> None:
    """The answering end: call `handle(**request)` for each line of standard input, until it closes."""
    while line := await asyncio.to_thread(sys.stdin.readline):
        found = handle(**json.loads(line))
        if inspect.isawaitable(found):
            found = await found
        sys.stdout.write(json.dumps(found) + "\n")
        sys.stdout.flush()
