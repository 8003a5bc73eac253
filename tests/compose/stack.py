"""compose.replica.yaml brought up under its own project name and ports, and what the tests ask of it."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar
from unittest.mock import patch

from sqlalchemy import URL, NullPool
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from testcontainers.compose import ComposeContainer, DockerCompose

T = TypeVar("T")

ROOT = Path(__file__).resolve().parents[2]
FILE = "compose.replica.yaml"
VERSION = os.environ.get("LAGWISE_COMPOSE_POSTGRES", "17")
REPLICAS = ("replica-1", "replica-2")
NODES = ("primary", *REPLICAS)
# Not the defaults, so that a password that does not reach its place is found out.
PASSWORDS = {"postgres": "test-postgres", "replicator": "test-replication", "app": "test-app"}


def why_not(*, image: str | None = None) -> str | None:
    """What is missing here of docker, Compose, an engine that answers and ``image``; None: nothing."""
    if shutil.which("docker") is None:
        return "no docker command on this machine"
    if _fails("compose", "version"):
        return "docker has no compose plugin"
    if image is None:
        return None
    if reason := _fails("version", "--format", "{{.Server.Version}}"):
        return f"no Docker engine answers: {reason}"
    if _fails("image", "inspect", image) and (reason := _fails("pull", "--quiet", image, limit=150)):
        return f"the image {image} is not here and cannot be pulled: {reason}"
    return None


def _fails(*arguments: str, limit: float = 30) -> str | None:
    try:
        subprocess.run(["docker", *arguments], capture_output=True, text=True, check=True, timeout=limit)
    except subprocess.CalledProcessError as failed:
        return (str(failed.stderr).strip().splitlines() or ["no reason given"])[-1]
    except subprocess.TimeoutExpired:
        return f"no answer in {limit:g} s"
    return None


def _output(command: list[str]) -> str:
    return subprocess.run(command, cwd=ROOT, capture_output=True, check=True, timeout=170).stdout.decode()


def docker(*arguments: str) -> str:
    """What ``docker ARGUMENTS`` prints."""
    return _output(["docker", *arguments])


def free_ports(count: int) -> list[int]:
    """Ports of loopback that are free; all are held while they are chosen, so that no two are the same."""
    with ExitStack() as held:
        socks = [held.enter_context(socket.socket()) for _ in range(count)]
        for sock in socks:
            sock.bind(("127.0.0.1", 0))
        return [int(sock.getsockname()[1]) for sock in socks]


class Stack:
    """One project of compose.replica.yaml, through testcontainers.

    Compose blocks, so it runs in threads: the loop has other tenants. What fails raises AssertionError with
    what was said.
    """

    def __init__(self, project: str) -> None:
        self.project = project
        self.ports: dict[str, int] = dict(zip(NODES, free_ports(len(NODES)), strict=True))
        self._compose = DockerCompose(ROOT, compose_file_name=FILE, docker_command_path="docker")
        self._environment = {
            "COMPOSE_PROJECT_NAME": project,
            "POSTGRES_VERSION": VERSION,
            "HEALTH_INTERVAL": "500ms",
            "POSTGRES_PASSWORD": PASSWORDS["postgres"],
            "REPLICATION_PASSWORD": PASSWORDS["replicator"],
            "APP_PASSWORD": PASSWORDS["app"],
            "PRIMARY_PORT": str(self.ports["primary"]),
            "REPLICA_1_PORT": str(self.ports["replica-1"]),
            "REPLICA_2_PORT": str(self.ports["replica-2"]),
        }

    async def up(self, *arguments: str, **settings: str) -> None:
        """Bring all of it (or the services among ``arguments``) up, and wait until it is healthy."""
        try:
            if arguments:
                await self.compose("up", "--detach", "--wait", *arguments, **settings)
            else:
                await self._do(self._compose.start, **settings)
        except AssertionError as failed:
            failed.add_note(await self.compose("logs", "--no-color", "--tail", "30"))
            raise

    async def remove(self) -> None:
        """Take it down, with its volumes."""
        await self._do(self._compose.stop)

    async def compose(self, *arguments: str, **settings: str) -> str:
        """What ``docker compose ARGUMENTS`` prints, with ``settings`` in the environment."""
        command = [*self._compose.docker_compose_command(), *arguments]
        return await self._do(partial(_output, command), **settings)

    async def sh(self, service: str, script: str) -> str:
        """What a shell script prints in a running container."""
        command = ["bash", "-ec", script]
        output, _, _ = await self._do(partial(self._compose.exec_in_container, command, service))
        return output.strip()

    async def once(self, service: str, script: str) -> str:
        """What a shell script prints in a container of its own, with the volume of ``service``."""
        alone = ("run", "--rm", "--no-deps", "-T", "--entrypoint", "bash")
        return await self.compose(*alone, service, "-ec", script)

    async def psql(self, service: str, sql: str) -> str:
        """What the superuser is told over the socket, unaligned and without headings."""
        return await self.sh(service, f"psql -XqtA -v ON_ERROR_STOP=1 -d app <<'SQL'\n{sql}\nSQL")

    def url(self, node: str, user: str = "app", password: str | None = None) -> URL:
        """The address of a node at its published port."""
        return URL.create(
            "postgresql+asyncpg",
            username=user,
            password=PASSWORDS[user] if password is None else password,
            host="127.0.0.1",
            port=self.ports[node],
            database="app",
        )

    @asynccontextmanager
    async def connect(
        self, node: str, user: str = "app", password: str | None = None
    ) -> AsyncIterator[AsyncConnection]:
        """An autocommit connection over the published port, by password."""
        url = self.url(node, user, password)
        engine = create_async_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
        async with engine.connect() as connection:
            yield connection

    async def containers(self) -> dict[str, ComposeContainer]:
        """Every running container by its service."""
        return {str(found.Service): found for found in await self._do(self._compose.get_containers)}

    async def healthy(self) -> bool:
        """Whether every running container says that it is."""
        return all(found.Health == "healthy" for found in (await self.containers()).values())

    async def container_of(self, node: str) -> str:
        """The id of the container of ``node``."""
        return str((await self.containers())[node].ID)

    async def streaming(self) -> dict[str, str]:
        """The physical slot over which every replica streams, in the replica's words and the primary's."""
        active = await self.psql(
            "primary",
            "select application_name || ' ' || slot_name from pg_stat_replication "
            "join pg_replication_slots on pid = active_pid where state = 'streaming' and slot_type = 'physical'",
        )
        # The primary alone would count a clone, which streams over the slot too.
        query = "select slot_name from pg_stat_wal_receiver where status = 'streaming'"
        slots = {node: await self.sh(node, f'psql -XqtA -c "{query}" || true') for node in REPLICAS}
        return {node: slot for node, slot in slots.items() if f"{node} {slot}" in active.splitlines()}

    async def identity(self, node: str) -> str:
        """What every clone has anew: the inode of a file nothing writes to later, and when it was written."""
        return await self.sh(node, "stat -c '%i %y' /var/lib/postgresql/$PG_MAJOR/main/PG_VERSION")

    async def _do(self, act: Callable[[], T], **settings: str) -> T:
        def here() -> T:
            # testcontainers hands Compose this process's environment and takes no other.
            with patch.dict(os.environ, {**self._environment, **settings}):
                return act()

        try:
            return await asyncio.to_thread(here)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as failed:
            said = "\n".join([str(failed), *((out or b"").decode()[-3000:] for out in (failed.stdout, failed.stderr))])
            raise AssertionError(said) from failed
