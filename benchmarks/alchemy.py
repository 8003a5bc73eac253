"""Starts advanced-alchemy beside the others: its routing needs SQLAlchemy below 2.1, so it cannot share ours."""

import os
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.metadata import version

from benchmarks.application import POOL, Servers
from benchmarks.contestants import ALCHEMY
from benchmarks.peer import ROOT, Peer, PeerError, peer


@asynccontextmanager
async def alchemists(*ways: Servers) -> AsyncIterator[tuple[list[Peer | None], str]]:
    """One process for each way to the servers, and a note: what runs there, or why nothing does."""
    # `uv run` says where it is itself.
    uv = os.environ.get("UV") or shutil.which("uv")
    if uv is None:
        yield [None for _ in ways], f"{ALCHEMY}: left out, uv is not installed"
        return
    environment = ["--isolated", "--no-project", "--quiet", "--python", sys.executable]
    # The driver that all contestants have, or drivers would be compared.
    needs = ["advanced-alchemy", "sqlalchemy[asyncio]<2.1", f"asyncpg=={version('asyncpg')}"]
    command = [uv, "run", *environment, *(word for need in needs for word in ("--with", need))]
    async with _started([*command, "python", str(ROOT / "benchmarks" / "peers" / "alchemy.py")], ways) as found:
        yield found


@asynccontextmanager
async def _started(command: list[str], ways: tuple[Servers, ...]) -> AsyncIterator[tuple[list[Peer | None], str]]:
    async with AsyncExitStack() as stack:
        peers: list[Peer | None] = []
        note = ""
        try:
            for way in ways:
                started = await stack.enter_async_context(peer(ALCHEMY, command))
                versions = await started.ask(**way.as_json(), **POOL)
                note = f"{ALCHEMY}: " + ", ".join(f"{name} {number}" for name, number in versions.items())
                peers.append(started)
        except PeerError as error:
            peers, note = [None for _ in ways], f"{ALCHEMY}: left out. {error}"
        yield peers, note
